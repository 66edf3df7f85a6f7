import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { createFakeParts } from '../testing/fake-parts.ts';
import { identify, isRunning, killProcess } from '#host/process/process-identity.ts';
import { processesOf, pssKiB } from './processes.ts';
import { writeRecord, type SandboxRecord } from './record.ts';
import { sweep } from './sweep.ts';

const never = new AbortController().signal;
const own = process.getuid?.() ?? 0;
const skip = own === 0 ? false : 'needs root';
/** A unique mark, since processes that have it on their command line are killed here, as root. */
const mark = `sb-${randomBytes(6).toString('hex')}`;

const record = (id: string, more: Partial<SandboxRecord> = {}): SandboxRecord => ({
  version: 1,
  id,
  namespace: 'default',
  name: 'web',
  podUid: 'u',
  uid: own,
  createdAt: new Date(0).toISOString(),
  ...more,
});

async function left() {
  const root = await mkdtemp(join(tmpdir(), 'podvm-sweep-'));
  const make = async (id: string, more: Partial<SandboxRecord> = {}) => {
    await mkdir(join(root, id));
    await writeRecord(join(root, id), record(id, more));
  };
  return { root, make, parts: createFakeParts(root), [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

/** A process with its sandbox's id on its command line, like a jailed VMM. */
function startVmm(id: string) {
  const child = spawn('sh', ['-c', 'read line', id], { stdio: ['pipe', 'ignore', 'ignore'] });
  return { child, ended: once(child, 'exit'), pid: child.pid ?? 0 };
}

test('sweep() ends the machine on record and removes the directory', async () => {
  await using place = await left();
  const vmm = startVmm('x');
  const identity = await identify(vmm.pid);
  assert.ok(identity);
  const machine = { driver: 'fake', id: `${mark}-1`, directory: '/', memoryMiB: 512, uid: own, ...identity };
  await place.make(`${mark}-1`, { machine });
  assert.deepEqual(await sweep(place.root, place.parts, silentLog, never), [`${mark}-1`]);
  assert.deepEqual(await vmm.ended, [null, 'SIGKILL']);
  assert.deepEqual(await readdir(place.root), []);
});

test('sweep() finds a machine whose starter was killed before it recorded the pid', async () => {
  await using place = await left();
  const vmm = startVmm(`${mark}-2`);
  await place.make(`${mark}-2`);
  await sweep(place.root, place.parts, silentLog, never);
  assert.deepEqual(await vmm.ended, [null, 'SIGKILL']);
});

test('sweep() finds a machine whose starter was killed while its jail was still of root', { skip }, async () => {
  await using place = await left();
  const id = `${mark}-6`;
  const user = 4_000_000;
  await place.make(id, { uid: user });
  const starting = once(spawn('sh', ['-c', 'read line', 'bwrap', '--bind', `/somewhere/${id}/machine`]), 'exit');
  const stranger = startVmm(`/somewhere/${id}/machine`); // such as an editor of root
  await sweep(place.root, place.parts, silentLog, never);
  assert.deepEqual(await starting, [null, 'SIGKILL']);
  stranger.child.kill();
  assert.deepEqual(await stranger.ended, [null, 'SIGTERM']);
});

test('sweep() leaves a process alone that only sees a mount named after the sandbox', { skip }, async () => {
  await using place = await left();
  const id = `${mark}-3`;
  const point = join(place.root, `netns-${id}`);
  await mkdir(point);
  const stranger = spawn('unshare', [
    '--mount',
    'sh',
    '-c',
    'read point; mount -t tmpfs podvm-test "$point"; echo mounted; read line',
  ]);
  const ended = once(stranger, 'exit');
  stranger.stdin.write(`${point}\n`);
  await once(stranger.stdout, 'data');
  await mkdir(join(place.root, id));
  await writeRecord(join(place.root, id), record(id));
  await sweep(place.root, place.parts, silentLog, never);
  assert.ok(await identify(stranger.pid ?? 0));
  stranger.stdin.end();
  assert.deepEqual(await ended, [1, null]);
});

test('sweep() leaves a process alone that reuses the pid of a former machine', async () => {
  await using place = await left();
  const stranger = startVmm('another');
  const machine = {
    driver: 'fake',
    id: `${mark}-3`,
    directory: '/',
    memoryMiB: 512,
    uid: own,
    pid: stranger.pid,
    startTicks: '1',
  };
  await place.make(`${mark}-3`, { machine });
  await sweep(place.root, place.parts, silentLog, never);
  assert.equal(stranger.child.exitCode, null);
  const identity = await identify(stranger.pid);
  assert.ok(identity && (await isRunning(identity)));
  assert.ok((await pssKiB(stranger.pid)) > 0);
  await killProcess(identity);
  await stranger.ended;
  assert.deepEqual(await processesOf(own, `${mark}-3`), []);
  assert.equal(await pssKiB(stranger.pid), 0);
});

test('sweep() finds the machine of a damaged record by the group of its directory', { skip }, async () => {
  await using place = await left();
  const id = `${mark}-7`;
  const user = 1_879_100_032 + 7;
  const child = spawn('setpriv', [`--reuid=${user}`, `--clear-groups`, 'sh', '-c', 'read line', id], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const ended = once(child, 'exit');
  await mkdir(join(place.root, id, 'machine'), { recursive: true });
  await chown(join(place.root, id, 'machine'), 0, user);
  await writeFile(join(place.root, id, 'sandbox.json'), '');
  while (!(await readFile(`/proc/${child.pid}/status`, 'utf8')).includes(`Uid:\t${user}`)) await readFile('/proc/stat');
  assert.deepEqual(await sweep(place.root, place.parts, silentLog, never), [id]);
  assert.deepEqual(await ended, [null, 'SIGKILL']);
});

test('sweep() keeps what it cannot understand, and its attachment, for inspection', async () => {
  await using place = await left();
  await place.make(`${mark}-4`);
  await mkdir(join(place.root, `${mark}-5`));
  await writeFile(join(place.root, `${mark}-5`, 'sandbox.json'), '{"version":99}');
  let kept: ReadonlySet<string> = new Set();
  const network = {
    ...place.parts.network,
    collect: async (keep: ReadonlySet<string>) => {
      kept = keep;
      return [];
    },
  };
  assert.deepEqual(await sweep(place.root, { driver: place.parts.driver, network }, silentLog, never), [`${mark}-4`]);
  assert.deepEqual([...kept], [`${mark}-5`]);
  assert.deepEqual(await readdir(place.root), [`${mark}-5`]);
});
