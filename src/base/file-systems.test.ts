import assert from 'node:assert/strict';
import { test } from 'node:test';
import { holdsData, isRemote, kernelDevicesOf, nameOfFileSystem } from './file-systems.ts';
import { parseMountInfo } from './mount-table.ts';

const none: ReadonlySet<string> = new Set();
const anonymous = '0:55';

test('holdsData() accepts file systems on a disk, and others only if they are known to hold data', () => {
  for (const type of [0xef53, 0x5846_5342, 0x4d44, 0x1234_5678]) {
    assert.ok(holdsData({ type, device: '254:0' }, none), type.toString(16));
    assert.ok(!holdsData({ type, device: anonymous }, none), type.toString(16));
  }
  const data = { overlayfs: 0x794c_7630, btrfs: 0x9123_683e, nfs: 0x6969, fuse: 0x6573_5546, zfs: 0x2fc1_2fc1 };
  for (const [name, type] of Object.entries(data)) assert.ok(holdsData({ type, device: anonymous }, none), name);
  const kernel = {
    ...{ proc: 0x9fa0, sysfs: 0x6265_6572, cgroup: 0x27_e0eb, cgroup2: 0x6367_7270, debugfs: 0x6462_6720 },
    ...{ tracefs: 0x7472_6163, bpf: 0xcafe_4a11, devpts: 0x1cd1, securityfs: 0x7363_6673, configfs: 0x6265_6570 },
    ...{ pstore: 0x6165_676c, efivarfs: 0xde5e_81e4, binfmt_misc: 0x4249_4e4d, mqueue: 0x1980_0202 },
    ...{ fusectl: 0x6573_5543, selinuxfs: 0xf97c_ff8c, nsfs: 0x6e73_6673, hugetlbfs: 0x9584_58f6 },
  };
  for (const [name, type] of Object.entries(kernel)) {
    assert.ok(!holdsData({ type, device: anonymous }, none), name);
    assert.equal(nameOfFileSystem(type), name);
  }
});

test('holdsData() distinguishes devtmpfs from tmpfs by its device', () => {
  const mounts = parseMountInfo(
    ['30 1 0:6 / /dev rw - devtmpfs udev rw', '31 1 0:24 / /run rw,nosuid - tmpfs tmpfs rw', ''].join('\n'),
  );
  const tmpfs = 0x0102_1994;
  assert.ok(!holdsData({ type: tmpfs, device: '0:6' }, kernelDevicesOf(mounts)));
  assert.ok(holdsData({ type: tmpfs, device: '0:24' }, kernelDevicesOf(mounts)));
});

test('isRemote() recognises file systems that may hang, and none of the kernel’s own', () => {
  assert.deepEqual(['nfs4', 'fuse.sshfs', 'cifs'].filter(isRemote), ['nfs4', 'fuse.sshfs', 'cifs']);
  assert.deepEqual(['fusectl', 'proc', 'cgroup2', 'tmpfs', 'nfsd', 'rpc_pipefs'].filter(isRemote), []);
});
