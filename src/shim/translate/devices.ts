import { readFile } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerDevice } from '#sandbox/sandbox.ts';
import type { OciSpec } from '../bundle/oci-spec.ts';

/** Converts a container's devices, which OCI names by their numbers. Errors: `unsupported` unless a block device. */
export async function devicesOf(what: string, { linux }: OciSpec): Promise<ContainerDevice[]> {
  return await Promise.all(
    (linux.devices ?? []).map(async ({ path, type, major, minor }) => {
      const hostPath = type === 'b' ? await blockDevicePath(major ?? 0, minor ?? 0) : undefined;
      if (hostPath === undefined) {
        throw new PodvmError(
          'unsupported',
          `Cannot create ${what}: the device ${printable(path)} is not a block device of the node`,
          { fix: 'Remove it: a machine can only use block volumes of the host.' },
        );
      }
      const rule = linux.resources?.devices?.find((one) => one.allow && one.major === major && one.minor === minor);
      return { hostPath, devicePath: path, readOnly: rule !== undefined && !rule.access.includes('w') };
    }),
  );
}

async function blockDevicePath(major: number, minor: number): Promise<string | undefined> {
  const text = await readFile(`/sys/dev/block/${major}:${minor}/uevent`, 'utf8').catch(() => '');
  const name = /^DEVNAME=(\S+)$/m.exec(text)?.[1];
  return name === undefined ? undefined : `/dev/${name}`;
}
