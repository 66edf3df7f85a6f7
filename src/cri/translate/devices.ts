import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerDevice } from '#sandbox/sandbox.ts';
import type { ContainerConfig } from '../schema/api_pb.ts';

/**
 * Returns the devices of a container (`what`), which are block volumes; attaching them checks that they are block
 * devices. Without write permission, mknod permission is ignored. Errors: `invalid`, `unsupported`.
 */
export function devicesOf(what: string, { devices, CDIDevices }: ContainerConfig): ContainerDevice[] {
  if (CDIDevices.length > 0) {
    throw new PodvmError('unsupported', `Cannot create ${what}: CDI devices are not supported`, {
      fix: 'Remove the devices: a machine can use only block volumes of the host.',
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
