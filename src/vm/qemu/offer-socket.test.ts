import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { offerSocket } from './offer-socket.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-offer-'));
after(() => rm(directory, { recursive: true }));
const uid = process.getuid?.() ?? 0;
const never = new AbortController().signal;

test('offerSocket() gives the one connection, which outlives the socket', async () => {
  const path = join(directory, 'port');
  const offered = await offerSocket(path, uid);
  assert.equal((await stat(path)).uid, uid);
  const first = connect(path);
  const connection = await offered.connection(never);
  await offered[Symbol.asyncDispose]();
  assert.deepEqual(await readdir(directory), []);
  connection.write('hello');
  const [bytes] = (await once(first, 'data')) as [Buffer];
  assert.equal(bytes.toString(), 'hello');
  first.destroy();
  connection.destroy();
});

test('offerSocket() listens also where the path is too long for a socket', async () => {
  const deep = join(directory, 'd'.repeat(120));
  await mkdir(deep);
  await using _offered = await offerSocket(join(deep, 'port'), uid);
  assert.deepEqual(await readdir(deep), ['port']);
});

test('offerSocket() waits no longer than it is asked to', async () => {
  await using offered = await offerSocket(join(directory, 'nobody'), uid);
  await assert.rejects(
    offered.connection(AbortSignal.timeout(10)),
    (error: unknown) => error instanceof PodvmError && error.kind === 'cancelled',
  );
});
