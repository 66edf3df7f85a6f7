import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Version } from './cgroup-version.ts';
import { StartWeight } from './start-weight.ts';

test('a call after an error moves the processes that the first one did not move', async () => {
  const root = await mkdtemp(join(tmpdir(), 'podvm-start-weight-'));
  try {
    // Plain directories in place of cgroups.
    const cpu = { root: join(root, 'cpu'), limits: () => ({}) };
    const version = { cpu, memory: { root: join(root, 'memory') } } as unknown as Version; // SAFE: all that is used
    const ofPod = join(cpu.root, 'pod', 'machine');
    await mkdir(ofPod, { recursive: true });
    await writeFile(join(ofPod, 'cgroup.procs'), '42\n');
    const weight = new StartWeight(version, 'machine', false);
    await assert.rejects(weight.set(true, 'pod'), { code: 'ENOENT' }); // no limit
    await writeFile(join(ofPod, 'cpu.cfs_quota_us'), '-1\n');
    await weight.set(true, 'pod');
    assert.equal(await readFile(join(weight.directory, 'cgroup.procs'), 'latin1'), '42');
  } finally {
    await rm(root, { recursive: true });
  }
});
