import type { IncomingHttpHeaders } from 'node:http';
import { portForwardProtocol } from './port-forward.ts';
import { spdyProcessProtocols } from './spdy-channels.ts';
import type { StreamRequest } from './tokens.ts';
import { processProtocols } from './websocket-channels.ts';
import { forwardProtocols, maxForwardedPorts } from './websocket-port-forward.ts';

/** The agreed transport and protocol. */
export type Agreement =
  | { readonly transport: 'spdy' | 'websocket'; readonly protocol: string }
  | {
      readonly transport: 'none';
      readonly status: 400 | 403;
      readonly why: string;
      readonly accepted: readonly string[];
    };

/** Protocol that carries SPDY in WebSocket messages. */
export const tunnelProtocol = `SPDY/3.1+${portForwardProtocol}`;

const accepted = {
  spdy: {
    exec: [...spdyProcessProtocols.keys()],
    attach: [...spdyProcessProtocols.keys()],
    portforward: [portForwardProtocol],
    relay: [portForwardProtocol],
  },
  websocket: {
    exec: [...processProtocols.keys()],
    attach: [...processProtocols.keys()],
    portforward: [tunnelProtocol, ...forwardProtocols.keys()],
    relay: [tunnelProtocol, ...forwardProtocols.keys()],
  },
} as const;

/** Selects the first protocol of the client's list that the server supports. */
export function negotiate(request: StreamRequest, headers: IncomingHttpHeaders): Agreement {
  const upgrade = (headers.upgrade ?? '').toLowerCase();
  if (upgrade === 'websocket') {
    const agreement = choose('websocket', headers['sec-websocket-protocol'] ?? '', request.kind);
    return agreement.transport === 'none' || mayForward(request, agreement.protocol) ? agreement : wrongPorts;
  }
  if (upgrade === 'spdy/3.1') return choose('spdy', headers['x-stream-protocol-version'], request.kind);
  return refusal('Upgrade to SPDY/3.1 or websocket');
}

function choose(
  transport: 'spdy' | 'websocket',
  offered: string | readonly string[] | undefined,
  kind: StreamRequest['kind'],
): Agreement {
  const known: readonly string[] = accepted[transport][kind];
  const names = [offered ?? []].flat().flatMap((line) => line.split(',').map((name) => name.trim()));
  const protocol = names.find((name) => known.includes(name));
  if (protocol !== undefined) return { transport, protocol };
  const why = `None of the client's protocols is supported`;
  return { transport: 'none', status: 403, why, accepted: known.filter((name) => name !== '') };
}

const refusal = (why: string) => ({ transport: 'none', status: 400, why, accepted: [] }) as const;

const wrongPorts = refusal(`With this protocol the request must name 1 to ${maxForwardedPorts} ports`);

function mayForward(request: StreamRequest, protocol: string): boolean {
  if (request.kind !== 'portforward' || protocol === tunnelProtocol) return true;
  return request.ports.length >= 1 && request.ports.length <= maxForwardedPorts;
}
