import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerDevice } from '#sandbox/sandbox.ts';
import type { ContainerConfig } from '../schema/api_pb.ts';

/**
 * The devices of a container, `what`, which are its block volumes; that they are block devices is seen when they are
 * attached. Who may not write may not make nodes either, nor need to. Errors: `invalid`, `unsupported`.
 */
export function devicesOf(what: string, { devices, CDIDevices }: ContainerConfig): ContainerDevice[] {
  if (CDIDevices.length > 0) {
    throw new PodvmError('unsupported', `Cannot create ${what}: it has devices by CDI, which change the host's side`, {
      fix: 'Leave the devices out: a machine has none of the host but block volumes.',
    });
  }
  return devices.map(({ hostPath, containerPath, permissions }) => {
    if (!isAbsolute(hostPath) || !isAbsolute(containerPath) || !/^[rwm]+$/.test(permissions)) {
      throw new PodvmError(
        'invalid',
        `Cannot create ${what}: a device must have absolute paths and some of the permissions "rwm", ` +
          `got ${printable(JSON.stringify({ hostPath, containerPath, permissions }), 300)}`,
      );
    }
    return { hostPath, devicePath: containerPath, readOnly: !permissions.includes('w') };
  });
}
