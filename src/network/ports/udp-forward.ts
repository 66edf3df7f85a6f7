import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import type { PortAddress } from '../port-address.ts';

/** Peers of one address of a host port that are answered at a time. */
const maxPeers = 1024;
/** A peer that neither sends nor is sent anything is forgotten, in `ms`. */
const idleMs = 90_000;
/** Bytes that may wait to be sent; what comes then is lost, as datagrams may be. */
const maxQueuedBytes = 1024 * 1024;

/** A peer, and the socket from which the pod hears it. */
interface Peer extends Disposable {
  send(datagram: Buffer): void;
}

/**
 * Takes datagrams on an address of the host to where `to` says by then, and brings the answers back; without that they
 * are dropped. Errors: those of bind(2), as Node's.
 */
export async function listenUdp(
  { address, port }: PortAddress,
  to: () => { readonly address: string; readonly port: number } | undefined,
): Promise<AsyncDisposable> {
  const peers = new Map<string, Peer>();
  const server = isIPv6(address) ? createSocket({ type: 'udp6', ipv6Only: true }) : createSocket('udp4');
  server.unref();
  server.bind({ address, port, exclusive: true });
  await once(server, 'listening').catch((error: unknown) => {
    server.close();
    throw error;
  });
  server.on('error', () => undefined); // of one datagram
  server.on('message', (datagram, { address: from, port: fromPort }) => {
    const target = to();
    if (target === undefined) return;
    const key = `${from} ${fromPort}`;
    let peer = peers.get(key);
    if (peer === undefined) {
      if (peers.size >= maxPeers) return;
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
  socket.on('error', () => undefined); // ECONNREFUSED: no listener there, or not yet
  socket.on('message', (datagram) => {
    idle.refresh();
    if (!isClosed) answer(datagram);
  });
  // Connected: only the pod's answers are heard.
  socket.connect(target.port, target.address, () => {
    isConnected = true;
    for (const datagram of waiting.splice(0)) send(datagram);
  });
  return { send, [Symbol.dispose]: close };
}

/** Datagrams that wait until the socket is connected. */
const maxWaiting = 16;
