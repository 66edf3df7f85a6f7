import type { WebSocket } from 'ws';
import { type ChannelEncoding, ChannelSocket } from './channel-socket.ts';
import { forwardPort } from './forward-port.ts';
import type { SessionParts } from './session-parts.ts';
import type { PortForwardStreamRequest } from './streaming.ts';

/** Protocols of port-forward by name; the empty name is for clients that name none. */
export const forwardProtocols: ReadonlyMap<string, ChannelEncoding> = new Map<string, ChannelEncoding>([
  ['v4.channel.k8s.io', 'binary'],
  ['v4.base64.channel.k8s.io', 'base64'],
  ['', 'binary'],
]);

/** Limit of ports in one request: with base64 the number of a channel is one ASCII character. */
export const maxForwardedPorts = 32;

/**
 * Serves port-forward over WebSocket as clients before `SPDY/3.1+portforward.k8s.io` speak it: the request names the
 * ports, and each is one connection with two channels, for bytes and for an error. The first message of both is the
 * port, 16 bits with the low byte first. Resolves when all connections have ended, or the client is gone.
 */
export async function serveWebSocketPortForward(
  socket: WebSocket,
  encoding: ChannelEncoding,
  { target, ports }: PortForwardStreamRequest,
  parts: SessionParts,
): Promise<void> {
  using client = new ChannelSocket(socket, { encoding }, parts);
  const forwards = ports.map((port, at) => {
    const number = Buffer.alloc(2);
    number.writeUInt16LE(port);
    const [data, error] = [client.both(2 * at), client.output(2 * at + 1)];
    data.write(number);
    error.write(number);
    return forwardPort({ port, data, error, target }, parts);
  });
  await Promise.all(forwards);
  await client.close();
}
