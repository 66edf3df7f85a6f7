import type { HostMount } from './mount-table.ts';

/**
 * Distinguishes file systems that hold data from the kernel's own: files of proc, sysfs or a cgroup control the host. A
 * file system on a block device (major number other than 0) holds data, whatever its type. Of the others, only the types
 * below are accepted.
 */
const dataFileSystems: ReadonlySet<number> = new Set([
  0x0102_1994, // tmpfs; also devtmpfs, which is recognised by its device number (`holdsData`)
  0x8584_58f6, // ramfs, the type of an initial root file system
  0x794c_7630, // overlayfs
  0x6175_6673, // aufs
  0x9123_683e, // btrfs, whose subvolumes have numbers without a device
  0xca45_1a4e, // bcachefs
  0x2fc1_2fc1, // zfs
  0xe0f5_e1e2, // erofs, of a file
  0x2405_1905, // ubifs
  0xf15f, // ecryptfs
  0x0187, // autofs: directories in which others appear
  0x6969, // nfs
  0x517b, // smb
  0xfe53_4d42, // smb2
  0xff53_4d42, // cifs
  0x00c3_6400, // ceph
  0x0102_1997, // 9p
  0x6573_5546, // fuse, virtiofs
  0x5346_414f, // afs
  0x6b41_4653, // kafs
  0x0bd0_0bd0, // lustre
  0x4750_4653, // gpfs
  0x1983_0326, // beegfs
  0x2003_0528, // orangefs
  0x7461_636f, // ocfs2
  0xa501_fcf5, // vxfs
  0xaad7_aaea, // panfs
  0xbeef_dead, // snfs
  0x6163_6673, // acfs
  0xbacb_acbc, // vmhgfs
  0x786f_4256, // vboxsf
]);

/** Names of the most common file systems of the kernel, for messages. */
const kernelFileSystems: ReadonlyMap<number, string> = new Map([
  [0x9fa0, 'proc'],
  [0x6265_6572, 'sysfs'],
  [0x27_e0eb, 'cgroup'],
  [0x6367_7270, 'cgroup2'],
  [0x6462_6720, 'debugfs'],
  [0x7472_6163, 'tracefs'],
  [0x7363_6673, 'securityfs'],
  [0x6265_6570, 'configfs'],
  [0xcafe_4a11, 'bpf'],
  [0x1cd1, 'devpts'],
  [0x1980_0202, 'mqueue'],
  [0x6573_5543, 'fusectl'],
  [0x6165_676c, 'pstore'],
  [0xde5e_81e4, 'efivarfs'],
  [0x4249_4e4d, 'binfmt_misc'],
  [0xf97c_ff8c, 'selinuxfs'],
  [0x4341_5d53, 'smackfs'],
  [0x9584_58f6, 'hugetlbfs'],
  [0x6e73_6673, 'nsfs'],
  [0x0765_5821, 'resctrl'],
  [0x6759_6969, 'rpc_pipefs'],
  [0x0102_1994, 'devtmpfs'],
]);

/** The results of stat(2) and statfs(2) for a file. */
export interface FileSystemOf {
  /** `f_type`, as an unsigned number of 32 bits. */
  readonly type: number;
  /** `MAJOR:MINOR` of `st_dev`, in decimal. */
  readonly device: string;
}

/** Whether its files may be a guest's. `kernelDevices`: device numbers of devtmpfs, which has the type of a tmpfs. */
export function holdsData({ type, device }: FileSystemOf, kernelDevices: ReadonlySet<string>): boolean {
  if (kernelDevices.has(device)) return false;
  return !device.startsWith('0:') || dataFileSystems.has(type);
}

const remote = ['9p', 'afs', 'autofs', 'beegfs', 'ceph', 'cifs', 'fuse', 'gpfs', 'lustre', 'nfs', 'nfs4', 'smb3'];

/** Whether a file system of that name (in /proc/PID/mountinfo) may hang, so that calls to it must be avoided. */
export function isRemote(name: string): boolean {
  return remote.includes(name) || name.startsWith('fuse.');
}

/** The name for messages: "proc". */
export function nameOfFileSystem(type: number): string {
  return kernelFileSystems.get(type) ?? `0x${type.toString(16)}`;
}

/** Numbers of the file systems of device nodes: one for all mounts of them. */
export function kernelDevicesOf(mounts: readonly HostMount[]): ReadonlySet<string> {
  return new Set(mounts.filter(({ fileSystem }) => fileSystem === 'devtmpfs').map(({ device }) => device));
}
