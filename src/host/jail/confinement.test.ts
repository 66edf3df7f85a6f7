import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Confinement, credentialsOf, limitsOf, mountsOf, readConfinement, weaknesses } from './confinement.ts';

const status = `Name:\tqemu
Uid:\t2000001\t2000001\t2000001\t2000001
Gid:\t2000002\t2000002\t2000002\t2000002
Groups:\t7 9
NoNewPrivs:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000400
CapAmb:\t0000000000000000
Seccomp:\t2
Seccomp_filters:\t2
`;

test('credentialsOf() reads a process’s user and the union of its capability sets', () => {
  assert.deepEqual(credentialsOf(status), {
    uid: 2000001,
    gid: 2000002,
    groups: [7, 9],
    capabilities: '400',
    noNewPrivileges: true,
    seccompFilters: 2,
  });
  assert.deepEqual(credentialsOf(status.replace('7 9', ' ')).groups, []);
  assert.equal(credentialsOf(status.replace(/^Seccomp_filters.*\n/m, '')).seccompFilters, 1);
});

test('limitsOf() and mountsOf() read the kernel’s tables', () => {
  const limits = limitsOf(
    'Limit                     Soft Limit           Hard Limit           Units\n' +
      'Max file size             4096                 4096                 bytes\n' +
      'Max core file size        0                    0                    bytes\n' +
      'Max processes             unlimited            unlimited            processes\n',
  );
  assert.deepEqual([limits.fileBytes, limits.coreBytes, limits.processes], [4096, 0, 'unlimited']);
  const line = '36 35 98:0 /x /machine ro,nosuid,nodev,relatime master:1 - ext4 /dev/root rw,errors=continue';
  assert.deepEqual(mountsOf(`${line}\n`), [
    { at: '/machine', type: 'ext4', readOnly: true, noSuid: true, noDevices: true },
  ]);
});

const whole: Confinement = {
  uid: 7,
  gid: 7,
  groups: [],
  capabilities: '0',
  noNewPrivileges: true,
  seccompFilters: 2,
  namespaces: ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'],
  limits: { coreBytes: 0, fileBytes: 1, openFiles: 1, processes: 1, lockedBytes: 1 },
  cgroup: { memoryBytes: 1, cpuMillis: 'unlimited', processes: 1 },
  mounts: [{ at: '/', type: 'tmpfs', readOnly: true, noSuid: true, noDevices: true }],
  devices: [],
};

test('weaknesses() lists each missing restriction, and none for a complete jail', () => {
  assert.deepEqual(weaknesses(whole), []);
  const lacking: readonly (readonly [Partial<Confinement>, RegExp])[] = [
    [{ uid: 0 }, /as root/],
    [{ gid: 0 }, /as root/],
    [{ groups: [0] }, /as root/],
    [{ capabilities: '400' }, /capabilities: 400/],
    [{ noNewPrivileges: false }, /gain privileges/],
    [{ seccompFilters: 0 }, /no system call filter/],
    ...whole.namespaces.map(
      (kind) =>
        [{ namespaces: whole.namespaces.filter((other) => other !== kind) }, new RegExp(`our ${kind} name`)] as const,
    ),
    [{ limits: { ...whole.limits, coreBytes: 'unlimited' } }, /dump/],
    [{ limits: { ...whole.limits, processes: 'unlimited' } }, /processes/],
    [{ cgroup: { ...whole.cgroup, memoryBytes: 'unlimited' } }, /memory/],
    [{ cgroup: { ...whole.cgroup, processes: 'unlimited' } }, /threads/],
    [{ mounts: [] }, /root file system is writable/],
  ];
  for (const [lack, words] of lacking) {
    const said = weaknesses({ ...whole, ...lack });
    assert.equal(said.length, 1, String(words));
    assert.match(said[0] ?? '', words);
  }
});

test('readConfinement() finds no jail around this process, and weaknesses() lists what is missing', async () => {
  const found = await readConfinement(process.pid);
  assert.equal(found.uid, process.geteuid?.());
  assert.deepEqual(found.namespaces, []);
  const said = weaknesses(found);
  for (const kind of ['mnt', 'net', 'pid', 'user']) assert.ok(said.includes(`it shares our ${kind} namespace`));
});
