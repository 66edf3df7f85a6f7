import { chown, stat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isInside } from '#host/inside-namespaces.ts';
import { run } from '#host/process/run.ts';

export interface DeviceNode {
  /** Path on the host and in the jail. */
  readonly path: string;
  readonly major: number;
  readonly minor: number;
}

// Numbers: the kernel's Documentation/admin-guide/devices.txt.
export const tunDevice: DeviceNode = { path: '/dev/net/tun', major: 10, minor: 200 };
export const kvmDevice: DeviceNode = { path: '/dev/kvm', major: 10, minor: 232 };

/**
 * Returns a path of the device that the user may open. Distributions ship /dev/net/tun as 0666, some hosts have 0600,
 * and /dev/kvm belongs to a group. If the user may not open the host's node, the machine's directory gets a node for
 * that user, unless it belongs to an ordinary user. Errors: `failedPrecondition` when the host has no such device, or it is
 * closed.
 */
export async function openableNode(
  { path, major, minor }: DeviceNode,
  directory: string,
  uid: number,
  signal: AbortSignal,
): Promise<string> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PodvmError('failedPrecondition', `Cannot use ${path}: no such device`, {
      cause,
      fix: path === tunDevice.path ? 'Load the kernel module: `modprobe tun`.' : 'Set the accelerator to `tcg`.',
    });
  });
  if ((found.mode & 0o006) === 0o006) return path;
  if (isInside) throw closed(path, found.mode); // device nodes are root's
  const own = join(directory, `dev-${minor}`);
  await rm(own, { force: true });
  await run('mknod', ['-m', '0600', own, 'c', String(major), String(minor)], { signal });
  await chown(own, uid, uid);
  return own;
}

function closed(path: string, mode: number): PodvmError {
  const octal = (mode & 0o777).toString(8);
  return new PodvmError('failedPrecondition', `Cannot use ${path}: it is not open to all users, got mode ${octal}`, {
    fix: `Run \`chmod 0666 ${path}\` as root; a udev rule makes it last.`,
  });
}
