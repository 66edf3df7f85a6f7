import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtempDisposable, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { lockDirectory } from './lock.ts';
import { endOrphans, findOrphans } from './orphans.ts';
import type { Parts } from '../parts.ts';
import { identify } from '#host/process/process-identity.ts';
import { makeSandboxDirectory } from './record.ts';

const never = new AbortController().signal;
const nothing = {
  network: { collect: () => Promise.resolve([]) } as unknown as Parts['network'], // SAFE: a sweep calls nothing else
  driver: { sweep: () => Promise.resolve() },
};

/** A state directory of a podvm that is gone: with one running machine and one that has ended. */
async function openRemains() {
  const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-orphans-'));
  const root = join(directory.path, 'sandboxes');
  await mkdir(root);
  const child = spawn('sleep', ['1000']);
  const ended = once(child, 'exit');
  const { pid = 0 } = child;
  const machine = { driver: 'qemu', id: 'm', directory: '/m', uid: 2_000_000, memoryMiB: 1 };
  const record = {
    version: 1,
    namespace: 'shop',
    podUid: '',
    uid: 2_000_000,
    createdAt: '2026-01-02T03:04:05Z',
  } as const;
  const identity = (await identify(pid)) ?? assert.fail('it ended');
  const running = { ...record, id: 'runs', name: 'web', machine: { ...machine, ...identity } };
  await makeSandboxDirectory(root, running);
  const reused = { ...machine, pid, startTicks: '1' }; // another process has this pid now
  await makeSandboxDirectory(root, { ...record, id: 'ended', name: 'db', machine: reused });
  return {
    path: directory.path,
    root,
    pid,
    ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe('findOrphans()', () => {
  test('finds the running machines of a podvm that has ended, and changes nothing', async () => {
    await using remains = await openRemains();
    const { pid } = remains;
    const orphan = { sandboxId: 'runs', namespace: 'shop', name: 'web', pid, createdAt: '2026-01-02T03:04:05Z' };
    assert.deepEqual(await findOrphans(remains.path), [orphan]);
    assert.deepEqual((await readdir(remains.root)).sort(), ['ended', 'runs']);
  });

  test('finds none where a podvm runs, or none ever ran', async () => {
    await using remains = await openRemains();
    await using _lock = await lockDirectory(remains.root);
    assert.deepEqual(await findOrphans(remains.path), []);
    await assert.rejects(endOrphans(remains.path, nothing, silentLog, never), { kind: 'busy' });
    assert.deepEqual(await findOrphans('/nowhere'), []);
    assert.deepEqual(await endOrphans('/nowhere', nothing, silentLog, never), []);
  });
});

describe('endOrphans()', () => {
  test('ends them, removes their remains, and returns those that ran', async () => {
    await using remains = await openRemains();
    const ended = await endOrphans(remains.path, nothing, silentLog, never);
    assert.deepEqual(
      ended.map(({ namespace, name }) => `${namespace}/${name}`),
      ['shop/web'],
    );
    await remains.ended;
    assert.deepEqual(await readdir(remains.root), []);
    assert.deepEqual(await findOrphans(remains.path), []);
  });
});
