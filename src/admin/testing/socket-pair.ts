import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { channel } from '#api/exec.ts';
import { poll } from '#host/wait.ts';

/** Both ends of one WebSocket on loopback. */
export interface SocketPair extends AsyncDisposable {
  /** The end that a session serves. */
  readonly served: WebSocket;
  readonly client: WebSocket;
  /** Sends a frame of the client. */
  readonly say: (to: (typeof channel)[keyof typeof channel], body: string | Uint8Array) => void;
}

export async function openSocketPair(): Promise<SocketPair> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
  const connected = once(server, 'connection');
  const client = new WebSocket(`ws://127.0.0.1:${port}`);
  const [served] = (await connected) as [WebSocket]; // SAFE: the event's own arguments
  await once(client, 'open');
  return {
    served,
    client,
    say: (to, body) => client.send(Buffer.concat([Buffer.from([to]), Buffer.from(body)])),
    async [Symbol.asyncDispose]() {
      client.terminate();
      served.terminate();
      const closed = once(server, 'close');
      server.close();
      await closed;
    },
  };
}

/** Resolves when the condition holds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const found = await poll(async () => holds() || undefined, { everyMs: 1, signal: AbortSignal.timeout(60_000) });
  assert.ok(found, what);
}
