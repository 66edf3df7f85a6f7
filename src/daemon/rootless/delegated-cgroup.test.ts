import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { giveBack, lackingOf, ownCgroup, userUnit } from './delegated-cgroup.ts';

test('ownCgroup() reads the path of version 2, and nothing that leads elsewhere', () => {
  assert.equal(ownCgroup('0::/user.slice/run-1.scope\n'), '/user.slice/run-1.scope');
  assert.equal(ownCgroup('4:memory:/a\n1:name=systemd:/b\n0::/c d:e\n'), '/c d:e', 'a hybrid host');
  assert.equal(ownCgroup('0::/\n'), '/', 'the root of a container');
  const wrong = [
    '',
    '4:memory:/a\n',
    '0::a\n',
    '0::\n',
    '0::/../../a\n',
    '0::/a/../b\n',
    '0::/a/./b\n',
    '0::/a//b\n',
    '0::/a/\n',
    '0::/\u001b[2J\n',
  ];
  for (const text of [...wrong, '0::/a (deleted)\n', '0::/a\n0::/b\n']) assert.equal(ownCgroup(text), undefined, text);
});

test('userUnit() names the unit of the user’s systemd, and none for a unit of the system', () => {
  const manager = '/user.slice/user-1000.slice/user@1000.service';
  assert.equal(userUnit(`${manager}/app.slice/run-r7.scope`), 'run-r7.scope');
  assert.equal(userUnit(`${manager}/app.slice/run-r7.scope/podvm-processes`), 'run-r7.scope');
  assert.equal(userUnit(`${manager}/init.scope`), 'init.scope');
  assert.equal(userUnit(`${manager}/app.slice`), '', 'a cgroup of it without a unit');
  assert.equal(userUnit('/user.slice/user-1000.slice/session-3.scope'), undefined);
  assert.equal(userUnit('/system.slice/runner.service'), undefined);
});

test('lackingOf() names the controllers that limits of machines need', () => {
  assert.deepEqual(lackingOf(['cpuset', 'cpu', 'io', 'memory', 'pids']), []);
  assert.deepEqual(lackingOf(['memory', 'pids']), ['cpu', 'io']);
  assert.deepEqual(lackingOf(['']), ['memory', 'pids', 'cpu', 'io']);
});

test('giveBack() leaves a cgroup alone in which nothing was made, as one that got the path after a restart', async () => {
  const cgroup = await mkdtemp(join(tmpdir(), 'podvm-cgroup-'));
  const control = join(cgroup, 'cgroup.subtree_control');
  await writeFile(control, 'memory pids\n');
  await giveBack(cgroup);
  assert.equal(await readFile(control, 'latin1'), 'memory pids\n');
  await giveBack(join(cgroup, 'gone'));
  await rm(cgroup, { recursive: true });
});
