import { open } from '#engine/constants.ts';
import type { Descriptors, Files, Timers } from '#engine/engine.ts';
import { poll } from '../process/poll.ts';

type Parts = Pick<Files, 'list' | 'readText' | 'status'> & Pick<Descriptors, 'open'> & Pick<Timers, 'setTimer'>;

/** The virtio-serial port of the channel to the host, named by QEMU's `virtserialport,name=`. */
export const agentPort = 'podvm.agent';

const portsDirectory = '/sys/class/virtio-ports';
const pollMs = 2;

/** Device file of the port with that name; `undefined` if there is none (yet). */
export function findPort(parts: Pick<Files, 'list' | 'readText' | 'status'>, name: string): string | undefined {
  if (parts.status(portsDirectory) === undefined) return undefined;
  for (const entry of parts.list(portsDirectory)) {
    const file = `${portsDirectory}/${entry}/name`;
    if (parts.status(file) !== undefined && parts.readText(file, 256).trim() === name) return `/dev/${entry}`;
  }
  return undefined;
}

/**
 * Opens the port with that name for reading and writing, non-blocking, as soon as the kernel shows it (ports are made
 * by messages after the driver has loaded). While the host is away the descriptor polls as hung up, reads return 0 and
 * writes EAGAIN: unwatch it and try again by timer; it need not be opened again. Errors: `Error` when it is missing
 * after `timeoutMs`.
 */
export async function openPort(parts: Parts, name: string, timeoutMs: number): Promise<number> {
  const look = () => {
    const path = findPort(parts, name);
    return path === undefined || parts.status(path) === undefined ? undefined : path;
  };
  const path = await poll(parts, look, { everyMs: pollMs, forMs: timeoutMs });
  if (path === undefined) throw new Error(`Cannot open port ${name}: missing after ${timeoutMs} ms`);
  return parts.open(path, open.readWrite | open.nonBlock | open.noControllingTty);
}
