import { mountFlags, open } from '#engine/constants.ts';
import type { Descriptors, Files, Mounts } from '#engine/engine.ts';
import { codeOf } from '#engine/engine.ts';

type Parts = Mounts & Files & Descriptors;

const { noSuid, noExec, noDevices } = mountFlags;

const earlyMounts = [
  { type: 'proc', target: '/proc', flags: noSuid | noDevices | noExec, data: '' },
  { type: 'sysfs', target: '/sys', flags: noSuid | noDevices | noExec, data: '' },
  { type: 'devtmpfs', target: '/dev', flags: noSuid, data: 'mode=0755' },
  { type: 'tmpfs', target: '/run', flags: noSuid | noDevices, data: 'mode=0755' },
] as const;

const lateMounts = [
  { type: 'devpts', target: '/dev/pts', flags: noSuid | noExec, data: 'mode=0620,ptmxmode=0666,gid=5' },
  { type: 'tmpfs', target: '/dev/shm', flags: noSuid | noDevices, data: 'mode=1777' },
  { type: 'mqueue', target: '/dev/mqueue', flags: noSuid | noDevices | noExec, data: '' },
  { type: 'tmpfs', target: '/tmp', flags: noSuid | noDevices, data: 'mode=1777,size=16m' },
] as const;

const cgroupRoot = '/sys/fs/cgroup';

/** Mounts /proc, /sys, /dev and /run, on which all else depends; then makes the console the standard streams. */
export function mountEarly(parts: Parts): void {
  for (const { type, target, flags, data } of earlyMounts) mountOne(parts, type, target, flags, data);
  // There is no modprobe yet (`ModuleRequests`): without this, the kernel starts one for every missing module, and
  // waits.
  parts.writeExisting('/proc/sys/kernel/modprobe', '\n');
  const console = parts.open('/dev/console', open.readWrite | open.noControllingTty | open.nonBlock);
  for (const fd of [0, 1, 2]) if (fd !== console) parts.duplicateTo(console, fd);
  if (console > 2) parts.close(console);
}

/** Mounts the file systems that containers need. */
export function mountLate(parts: Parts): void {
  for (const { type, target, flags, data } of lateMounts) mountOne(parts, type, target, flags, data);
  for (const [name, target] of Object.entries({ fd: '', stdin: '/0', stdout: '/1', stderr: '/2' })) {
    if (parts.status(`/dev/${name}`) === undefined) parts.symlink(`/proc/self/fd${target}`, `/dev/${name}`);
  }
}

/** Mounts the one cgroup tree. */
export function mountCgroups(parts: Parts): void {
  const data = 'nsdelegate,memory_recursiveprot';
  mountOne(parts, 'cgroup2', cgroupRoot, noSuid | noDevices | noExec, data);
}

/**
 * Makes the root a mount that has a parent. pivot_root refuses the initramfs itself (it is the root of all mounts), and a
 * runtime that cannot pivot falls back to a weaker chroot. Moves a bind mount of the root over it, which copies nothing.
 */
export function moveRoot(parts: Parts): void {
  const target = '/run/root';
  parts.makeDirectories(target);
  parts.mount('/', target, '', mountFlags.bind | mountFlags.recursive, '');
  parts.changeDirectory(target);
  parts.mount(target, '/', '', mountFlags.move, '');
  parts.changeRoot('.');
  parts.changeDirectory('/');
  parts.mount('', '/', '', mountFlags.private | mountFlags.recursive, '');
}

function mountOne(parts: Parts, type: string, target: string, flags: number, data: string): void {
  parts.makeDirectories(target);
  try {
    parts.mount(type, target, type, flags, data);
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error; // the kernel has mounted it already (CONFIG_DEVTMPFS_MOUNT)
  }
}
