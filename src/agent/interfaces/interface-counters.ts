import { limits } from '#wire/limits.ts';
import type { InterfaceCounters } from '#wire/figures.ts';
import { open } from '#engine/constants.ts';
import type { Engine } from '#engine/engine.ts';

type Parts = Pick<Engine, 'open' | 'read' | 'close' | 'decodeUtf8'>;

/** Bytes read of the table: enough for the reported interfaces and loopback, whose lines have some 130 bytes. */
const maxTableBytes = 8 * 1024;

/** Counters of the agent's network namespace, which is the pod's. */
export function interfaceCounters(parts: Parts): InterfaceCounters[] {
  // Reads only the beginning: a container that may make interfaces may make thousands. The oldest ones come first.
  const bytes = new Uint8Array(maxTableBytes);
  const fd = parts.open('/proc/net/dev', open.readOnly);
  let length = 0;
  try {
    for (let read = 1; read > 0 && length < bytes.length; length += read) read = parts.read(fd, bytes, length);
  } finally {
    parts.close(fd);
  }
  return parseInterfaces(parts.decodeUtf8(bytes, 0, length));
}

/** Parses /proc/net/dev (proc_net(5)); ignores an incomplete last line. */
export function parseInterfaces(text: string): InterfaceCounters[] {
  const found = new Map<string, InterfaceCounters>();
  for (const line of text.split('\n').slice(0, -1)) {
    const [, name = '', rest = ''] = /^ *([A-Za-z0-9_.-]{1,15}):([ \d]+)$/.exec(line) ?? [];
    if (name === '' || name === 'lo') continue;
    const figures = rest.trim().split(/ +/).map(Number);
    const [rxBytes = 0, rxPackets = 0, rxErrors = 0, rxDropped = 0] = figures;
    const [txBytes = 0, txPackets = 0, txErrors = 0, txDropped = 0] = figures.slice(8);
    found.set(name, { name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped });
    if (found.size === limits.maxInterfaces) break;
  }
  return [...found.values()];
}
