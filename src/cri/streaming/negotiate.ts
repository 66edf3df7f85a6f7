import type { IncomingHttpHeaders } from 'node:http';
import { portForwardProtocol } from './port-forward.ts';
import type { StreamRequest } from './tokens.ts';
import { processProtocols } from './websocket-channels.ts';

/** The agreed transport and protocol. */
export type Agreement =
  | { readonly transport: 'spdy'; readonly protocol: string }
  | { readonly transport: 'websocket'; readonly protocol: string }
  | {
      readonly transport: 'none';
      readonly status: 400 | 403;
      readonly why: string;
      readonly accepted: readonly string[];
    };

const spdyProtocols = {
  exec: ['v4.channel.k8s.io'],
  attach: ['v4.channel.k8s.io'],
  portforward: [portForwardProtocol],
};
/** Prefix of protocols that carry SPDY in WebSocket messages. */
export const tunnelPrefix = 'SPDY/3.1+';
const webSocketProtocols = {
  exec: processProtocols,
  attach: processProtocols,
  portforward: [`${tunnelPrefix}${portForwardProtocol}`],
};

/** Selects the first protocol of the client's list that the server supports. */
export function negotiate(kind: StreamRequest['kind'], headers: IncomingHttpHeaders): Agreement {
  const upgrade = (headers.upgrade ?? '').toLowerCase();
  if (upgrade === 'websocket') {
    return choose('websocket', headers['sec-websocket-protocol'], webSocketProtocols[kind]);
  }
  if (upgrade === 'spdy/3.1') {
    return choose('spdy', headers['x-stream-protocol-version'], spdyProtocols[kind]);
  }
  return { transport: 'none', status: 400, why: 'Upgrade to SPDY/3.1 or websocket', accepted: [] };
}

function choose(
  transport: 'spdy' | 'websocket',
  offered: string | readonly string[] | undefined,
  accepted: readonly string[],
): Agreement {
  const names = [offered ?? []].flat().flatMap((line) => line.split(',').map((name) => name.trim()));
  const protocol = names.find((name) => accepted.includes(name));
  if (protocol !== undefined) return { transport, protocol };
  return { transport: 'none', status: 403, why: `None of the client's protocols is supported`, accepted };
}
