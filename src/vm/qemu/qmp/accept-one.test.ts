import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { openDoorway } from './accept-one.ts';

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-doorway-'));
  return { path: join(directory, 'port'), directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}
const isRoot = process.getuid?.() === 0;
const groupId = isRoot ? 64_999 : (process.getgid?.() ?? 0);

test('openDoorway() accepts one connection of its group, rejects the next, and leaves no socket', async () => {
  await using at = await place();
  const doorway = await openDoorway(at.path, groupId).catch((error: unknown) => {
    if (isRoot) throw error;
  });
  if (doorway === undefined) return; // chown needs root
  const { mode, uid, gid } = await stat(at.path);
  assert.deepEqual([mode & 0o777, uid, gid], [0o660, process.getuid?.(), groupId]);
  const guest = connect(at.path);
  const socket = await doorway.accept(AbortSignal.timeout(60_000));
  const second = connect(at.path);
  await once(second.resume(), 'close');
  await doorway[Symbol.asyncDispose]();
  assert.deepEqual(await readdir(at.directory), []);
  guest.end('hello');
  assert.equal(Buffer.concat(await Array.fromAsync(socket as AsyncIterable<Buffer>)).toString(), 'hello');
  socket.destroy();
});

test('accept() ends when its caller cancels, and a later connection is closed', async () => {
  await using at = await place();
  await using doorway = await openDoorway(at.path, process.getgid?.() ?? 0);
  await assert.rejects(doorway.accept(AbortSignal.abort()), (error) => kindOf(error) === 'cancelled');
  const late = connect(at.path);
  await once(late.resume(), 'close');
});
