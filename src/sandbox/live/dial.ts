import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Link } from '#link/link.ts';
import { openStream } from '../container/open-stream.ts';

/**
 * Connects to a port in the guest. Accepts only IP addresses, because the pod offers no way to look up a name; default: the
 * guest's loopback. Errors: `invalid`, and those of the call.
 */
export async function dial(
  guest: Link,
  port: number,
  address: string | undefined,
  signal: AbortSignal,
): Promise<Duplex> {
  checkDial(port, address);
  const stream = openStream(guest);
  try {
    await guest.call('dial', { stream: stream.id, address: address ?? 'localhost', port }, signal);
    return stream;
  } catch (error) {
    stream.destroy();
    throw error;
  }
}

function checkDial(port: number, address: string | undefined): void {
  const refuse = (why: string, got: string) =>
    new PodvmError('invalid', `Cannot connect to a pod: ${why}, got ${printable(got, 80)}`, {
      fix: 'Give a port of the pod, and its address as an IP address or not at all.',
    });
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw refuse('a port is from 1 to 65535', `${port}`);
  if (address !== undefined && isIP(address) === 0) throw refuse('its address must be an IP address', address);
}
