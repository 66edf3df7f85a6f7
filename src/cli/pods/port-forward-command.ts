import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { errorBodySchema } from '#api/pods.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { type Client, fromErrorBody, connectionFailed } from '../client.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import { podPath } from './pod-name.ts';
import { type Terminal, errorText, write } from '../terminal/terminal.ts';

export interface ForwardedPort {
  /** 0: any free port. */
  readonly local: number;
  readonly remote: number;
}

/** Parses `[LOCAL:]REMOTE` as kubectl does: `:80` takes any free local port. Errors: `invalid`. */
export function parseForwardedPort(text: string): ForwardedPort {
  const [, both, local = '', remote = ''] = /^((\d{0,5}):)?(\d{1,5})$/.exec(text) ?? [];
  const port = { local: both === undefined ? Number(remote) : Number(local), remote: Number(remote) };
  if (remote !== '' && port.remote > 0 && port.remote <= 65_535 && port.local <= 65_535) return port;
  throw new PodvmError('invalid', `Cannot forward a port: expected [LOCAL:]REMOTE, got ${text}`, {
    fix: 'Write it as 8080:80, as 80, or as :80 for any free local port.',
  });
}

/** Serves local ports of which each connection goes to a port of the pod, until a signal. */
export async function portForwardCommand(
  client: Client,
  pod: string,
  { ports, address }: { readonly ports: readonly ForwardedPort[]; readonly address: string },
  terminal: Terminal,
  ends: EndSignals,
): Promise<void> {
  await client.get(podPath(pod), v.object({})); // reports a missing pod before any connection
  await using undo = new AsyncDisposableStack();
  for (const { local, remote } of ports) {
    const server = createServer({ allowHalfOpen: true }, (connection) => {
      carry(client, `${podPath(pod)}/port-forward?port=${remote}`, connection, (error) =>
        terminal.stderr.write(errorText(error)),
      );
    });
    undo.use(await listen(server, local, address));
    const bound = server.address();
    const at = typeof bound === 'object' && bound !== null ? bound.port : local;
    await write(
      terminal.stdout,
      `Forwarding from ${address.includes(':') ? `[${address}]` : address}:${at} -> ${remote}\n`,
    );
  }
  await new Promise<void>((resolve) => {
    ends.listen(() => resolve());
    if (ends.any.aborted) resolve();
  });
}

async function listen(server: Server, port: number, host: string): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  server.on('connection', (socket) => open.add(socket.once('close', () => open.delete(socket))));
  server.listen({ port, host });
  await once(server, 'listening').catch((cause: unknown) => {
    throw new PodvmError('unavailable', `Cannot listen on ${host}:${port}`, {
      cause,
      fix: 'Choose another local port: LOCAL:REMOTE, or :REMOTE for any free one.',
    });
  });
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of open) socket.destroy();
      await once(server, 'close');
    },
  };
}

/** Copies one connection in both directions, each at the pace of its reader. */
function carry(client: Client, path: string, connection: Socket, fail: (error: unknown) => void): void {
  const socket = client.open(path);
  connection.pause();
  connection.on('error', () => socket.terminate());
  socket.on('error', (error) => {
    fail(connectionFailed('forward the port', error));
    connection.destroy();
  });
  socket.once('open', () => connection.resume());
  connection.on('data', (chunk) => {
    connection.pause();
    socket.send(chunk, () => connection.resume());
  });
  connection.on('end', () => socket.readyState === socket.OPEN && socket.send(Buffer.alloc(0)));
  connection.on('close', () => socket.terminate());
  socket.on('message', (data, isBinary) => {
    const bytes = messageBytes(data);
    if (!isBinary) {
      const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), errorBodySchema), bytes.toString('utf8'));
      if (parsed.success) fail(fromErrorBody(parsed.output));
      connection.destroy();
    } else if (bytes.length === 0) connection.end();
    else if (!connection.write(bytes)) {
      socket.pause();
      connection.once('drain', () => socket.resume());
    }
  });
  socket.once('close', () => connection.end());
}
