import { readdir, readFile, readlink } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { printable } from '#base/guest-text.ts';
import { allPids } from '#host/process/process-identity.ts';
import { heldBy } from '#host/socket/announcement.ts';
import { isAnyAddress, type PortAddress } from '../port-address.ts';

/** A socket of the host, as listed in /proc/net. */
interface Listed {
  readonly address: string;
  readonly inode: string;
}

/** Name under which the podvm that holds an address announces its pod. For SCTP, the name alone holds the port. */
export const announcedName = ({ protocol, address, port }: PortAddress): string =>
  `podvm-port-${protocol}-${address}-${port}`;

/** Describes the holder of a port of the host. */
export async function holderOf(wanted: PortAddress): Promise<string> {
  const sockets = await socketsAt(wanted);
  for (const { address } of [{ address: wanted.address }, ...sockets]) {
    const pod = await heldBy(announcedName({ ...wanted, address }));
    if (pod !== '') return `pod ${printable(pod, 200)} has it`;
  }
  const process = await processOf(new Set(sockets.map(({ inode }) => inode)));
  return process === undefined ? 'a process of this host has it' : `${process} has it`;
}

const tcpListen = '0A';

/** Listening sockets first; without any, those that use the port. */
async function socketsAt({ protocol, address, port }: PortAddress): Promise<readonly Listed[]> {
  if (protocol === 'SCTP') return sctpSocketsAt(await readFile(sctpEndpoints, 'latin1').catch(() => ''), address, port);
  const family = protocol.toLowerCase();
  const lines = (
    await Promise.all(
      [`/proc/net/${family}`, `/proc/net/${family}6`].map((path) => readFile(path, 'latin1').catch(() => '')),
    )
  ).flatMap((text) => text.split('\n').slice(1));
  const found = lines.flatMap((line) => {
    const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
    const [hex = '', portHex = ''] = local.split(':');
    if (Number.parseInt(portHex, 16) !== port) return [];
    return [{ address: addressOf(hex), inode, isListening: protocol !== 'TCP' || state === tcpListen }];
  });
  const meant = found.filter((one) => isInTheWay(one.address, address));
  const listening = meant.filter(({ isListening }) => isListening);
  return listening.length > 0 ? listening : meant;
}

/** An IPv6 socket on all addresses also takes IPv4's, unless it opts out; ours do. */
function isInTheWay(there: string, wanted: string): boolean {
  if (isIPv6(there) !== isIPv6(wanted)) return there === '::';
  return isAnyAddress(there) || isAnyAddress(wanted) || there === wanted;
}

const sctpEndpoints = '/proc/net/sctp/eps';

/** Parses the kernel's list, which exists once an SCTP socket has been made. */
export function sctpSocketsAt(list: string, address: string, port: number): readonly Listed[] {
  return list
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, , , , , local, , inode = '', ...addresses] = line.trim().split(/\s+/);
      if (Number(local) !== port) return [];
      const found = addresses.find((each) => isAnyAddress(each) || isAnyAddress(address) || each === address);
      return found === undefined ? [] : [{ address: found, inode }];
    });
}

/** Whether a process of the host has an SCTP socket there. */
export async function hasSctpSocket({ address, port }: PortAddress): Promise<boolean> {
  return sctpSocketsAt(await readFile(sctpEndpoints, 'latin1').catch(() => ''), address, port).length > 0;
}

/** Parses the kernel's words of 32 bits, each in this machine's byte order (little-endian). */
export function addressOf(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) => [...Buffer.from(word, 'hex').toReversed()]);
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.every((byte) => byte === 0)) return '::';
  const groups = Array.from({ length: 8 }, (_, at) =>
    ((bytes[2 * at] ?? 0) * 256 + (bytes[2 * at + 1] ?? 0)).toString(16),
  );
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

async function processOf(inodes: ReadonlySet<string>): Promise<string | undefined> {
  for (const pid of await allPids()) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []); // it ended just now
    for (const descriptor of descriptors) {
      const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '');
      if (!inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? '')) continue;
      const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      return `process ${pid} (${printable(name, 40)})`;
    }
  }
  return undefined;
}
