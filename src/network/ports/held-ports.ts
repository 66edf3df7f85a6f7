import { isIPv6 } from 'node:net';
import { PodvmError } from '#base/errors.ts';
import { isInside } from '#host/inside-namespaces.ts';
import { announce, heldBy } from '#host/socket/announcement.ts';
import type { HostPort } from '../network.ts';
import { addressesOf, type PortAddress, portText } from '../port-address.ts';
import { announcedName, hasSctpSocket, holderOf } from './port-holder.ts';
import { clashingRule, readPortRules, ruleText } from './port-rules.ts';
import { listenTcp } from './tcp-forward.ts';
import { listenUdp } from './udp-forward.ts';

/**
 * The host ports of one pod, each kept by a socket, so that no process of the host and no other pod can take it. The node's
 * rules take packets to the node's own addresses before a socket sees them; the rest, on loopback or where the network
 * makes no rules, is forwarded here. The kernel frees the ports when this process ends, in any way.
 */
export interface HeldPorts extends AsyncDisposable {
  /** Forwards from now on to the pod at these addresses; connections before are refused. */
  forward(addresses: readonly string[]): void;
}

export interface PortOwner {
  readonly sandboxId: string;
  /** `namespace/name`. */
  readonly pod: string;
}

/** Errors: `alreadyExists`, with the pod's name and the current holder. Holds nothing after an error. */
export async function holdPorts(ports: readonly HostPort[], owner: PortOwner, signal: AbortSignal): Promise<HeldPorts> {
  let addresses: readonly string[] = [];
  await using undo = new AsyncDisposableStack();
  for (const port of ports) {
    for (const at of addressesOf(port)) {
      const to = () => {
        const found = addresses.find((address) => isIPv6(address) === isIPv6(at.address)) ?? addresses[0];
        return found === undefined ? undefined : { address: found, port: port.containerPort };
      };
      const held = await holdOne(at, owner.pod, to);
      for (const each of held) undo.use(each);
    }
  }
  signal.throwIfAborted();
  const clash = ports.length === 0 ? undefined : clashingRule(ports, await readPortRules(signal), owner.sandboxId);
  if (clash !== undefined) {
    const { protocol, hostPort, hostIP = '' } = clash.port;
    throw taken(owner.pod, { protocol, port: hostPort, address: hostIP }, ruleText(clash.rule));
  }
  const owned = undo.move();
  return {
    forward: (given) => {
      addresses = given;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The host lacks the family or address, so there is nothing to hold. */
const absent = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EPROTONOSUPPORT']);

async function holdOne(
  at: PortAddress,
  pod: string,
  to: Parameters<typeof listenTcp>[1],
): Promise<readonly AsyncDisposable[]> {
  if (isInside && at.protocol === 'SCTP') throw noSctp(pod, at);
  try {
    const socket = at.protocol === 'SCTP' ? undefined : await (at.protocol === 'TCP' ? listenTcp : listenUdp)(at, to);
    await using undo = new AsyncDisposableStack();
    if (socket !== undefined) undo.use(socket);
    const name = await announce(announcedName(at), pod);
    if (name !== undefined) undo.use(name);
    // Node has no SCTP sockets: the name alone keeps the port from other pods.
    if (socket === undefined && (name === undefined || (await hasSctpSocket(at))))
      throw taken(pod, at, await holderOf(at));
    const owned = undo.move();
    return [{ [Symbol.asyncDispose]: () => owned.disposeAsync() }];
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''; // SAFE: only read
    if (absent.has(code)) return [];
    if (code === 'EADDRINUSE') throw taken(pod, at, await holderOf(at));
    if (code === 'EACCES') throw notAllowed(pod, at, error);
    throw error;
  }
}

function taken(pod: string, at: PortAddress, who: string): PodvmError {
  return new PodvmError('alreadyExists', `Cannot give pod ${pod} host port ${portText(at)}: ${who}`, {
    fix: 'Give the pod another hostPort or hostIP, or stop the program or pod that has this one.',
  });
}

function notAllowed(pod: string, at: PortAddress, cause: unknown): PodvmError {
  return new PodvmError('denied', `Cannot give pod ${pod} host port ${portText(at)}: this user may not listen there`, {
    cause,
    fix: 'Take a port from 1024 on, or lower the sysctl net.ipv4.ip_unprivileged_port_start.',
  });
}

function noSctp(pod: string, at: PortAddress): PodvmError {
  return new PodvmError('unsupported', `Cannot give pod ${pod} host port ${portText(at)}: only root can publish SCTP`, {
    fix: 'Use TCP or UDP, or run the pod as root.',
  });
}

/** Returns the ports that no process holds for the pod (`namespace/name`), on any of their addresses. */
export async function portsNotHeld(ports: readonly HostPort[], pod: string): Promise<readonly string[]> {
  const states = await Promise.all(
    ports.map(async (port) => {
      const holders = await Promise.all(addressesOf(port).map((at) => heldBy(announcedName(at))));
      return holders.includes(pod) ? [] : [portText({ ...port, address: port.hostIP ?? '', port: port.hostPort })];
    }),
  );
  return states.flat();
}
