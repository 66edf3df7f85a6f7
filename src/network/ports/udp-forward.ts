import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { isInside } from '#host/inside-namespaces.ts';
import { descriptors } from '#host/process/descriptors.ts';
import type { PortAddress } from '../port-address.ts';
import { listenOutside } from './outside-ports.ts';

/** Maximum peers of one address of a host port that are answered at a time. */
const maxPeers = 1024;
/** Time after which a peer without traffic in either direction is forgotten, in `ms`. */
const idleMs = 90_000;
/** Maximum bytes that wait to be sent; datagrams beyond are dropped. */
const maxQueuedBytes = 1024 * 1024;

/** A peer, with the socket that carries its datagrams to the pod. */
interface Peer extends Disposable {
  send(datagram: Buffer): void;
}

/**
 * Forwards datagrams from an address of the host to the address that `to` returns at that time, and the answers back;
 * drops them if it is undefined. Errors: those of bind(2), as Node's.
 */
export async function listenUdp(
  { address, port }: PortAddress,
  to: () => { readonly address: string; readonly port: number } | undefined,
): Promise<AsyncDisposable> {
  const peers = new Map<string, Peer>();
  const server = isInside ? await listenOutside({ address, port }, 'UDP') : await bind(address, port);
  server.unref();
  server.on('error', () => undefined); // concerns one datagram
  server.on('message', (datagram, { address: from, port: fromPort }) => {
    const target = to();
    if (target === undefined || fromPort === 0) return; // nothing can be sent to port 0
    const key = `${from} ${fromPort}`;
    let peer = peers.get(key);
    if (peer === undefined) {
      if (peers.size >= maxPeers || descriptors.isShort) return;
      const answer = (bytes: Buffer) => {
        if (server.getSendQueueSize() < maxQueuedBytes) server.send(bytes, fromPort, from);
      };
      peer = openPeer(target, answer, () => peers.delete(key));
      peers.set(key, peer);
    }
    peer.send(datagram);
  });
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const peer of peers.values()) peer[Symbol.dispose]();
      await closed;
    },
  };
}

async function bind(address: string, port: number): Promise<Socket> {
  const server = isIPv6(address) ? createSocket({ type: 'udp6', ipv6Only: true }) : createSocket('udp4');
  server.bind({ address, port, exclusive: true });
  await once(server, 'listening').catch((error: unknown) => {
    server.close();
    throw error;
  });
  return server;
}

function openPeer(
  target: { readonly address: string; readonly port: number },
  answer: (datagram: Buffer) => void,
  forget: () => void,
): Peer {
  const socket: Socket = createSocket(isIPv6(target.address) ? 'udp6' : 'udp4');
  let isClosed = false;
  const close = () => {
    if (isClosed) return;
    isClosed = true;
    clearTimeout(idle);
    forget();
    socket.close();
  };
  const idle = setTimeout(close, idleMs).unref();
  const waiting: Buffer[] = [];
  let isConnected = false;
  const send = (datagram: Buffer) => {
    if (!isConnected) waiting.push(datagram);
    else if (socket.getSendQueueSize() < maxQueuedBytes) socket.send(datagram);
    if (waiting.length > maxWaiting) waiting.shift();
    idle.refresh();
  };
  socket.unref();
  socket.on('error', () => {
    // On a connected socket: no listener, or not yet. Otherwise no descriptor is left, and the peer's next datagram
    // tries again.
    if (!isConnected) close();
  });
  socket.on('message', (datagram) => {
    idle.refresh();
    if (!isClosed) answer(datagram);
  });
  // A connected socket receives only the pod's answers.
  socket.connect(target.port, target.address, (error?: Error | null) => {
    if (error instanceof Error) {
      close(); // ENETUNREACH: the pod's network has been removed
      return;
    }
    isConnected = true;
    for (const datagram of waiting.splice(0)) send(datagram);
  });
  return { send, [Symbol.dispose]: close };
}

/** Maximum datagrams that wait until the socket is connected. */
const maxWaiting = 16;
