import { isIP } from 'node:net';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** Accepts only IP addresses, because the pod offers no way to look up a name. Errors: `invalid`. */
export function checkDial(port: number, address: string | undefined): void {
  const refuse = (why: string, got: string) =>
    new PodvmError('invalid', `Cannot connect to a pod: ${why}, got ${printable(got, 80)}`, {
      fix: 'Give a port of the pod, and its address as an IP address or not at all.',
    });
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw refuse('a port is from 1 to 65535', `${port}`);
  if (address !== undefined && isIP(address) === 0) throw refuse('its address must be an IP address', address);
}
