import { once } from 'node:events';
import { mkdtempDisposable } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import type { RunEvent } from '#api/run.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { serveCommand, type ServingNode } from '../serve-command.ts';

/** A run that a node was asked for. */
export interface AskedRun {
  readonly socket: WebSocket;
  /** Its messages so far: the request, then commands. */
  readonly messages: readonly string[];
  tell(event: RunEvent): void;
  print(text: string, stream?: 'stdout' | 'stderr'): void;
}

export interface TestedNode extends AsyncDisposable {
  readonly socketPath: string;
  readonly runs: readonly AskedRun[];
  /** Closes all connections, as a node that is killed. */
  kill(): void;
}

export const testedKey = 'build-1';

/** A node without machines: `onRun` answers its runs. `change`: facts of the node, other than a caller of this host expects. */
export async function openServingNode(
  onRun: (run: AskedRun) => void,
  mountNamespace: string,
  change: Partial<ServingNode> = {},
): Promise<TestedNode> {
  const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-served-'));
  const socketPath = join(directory.path, 'podvm.sock');
  const runs: AskedRun[] = [];
  const node: ServingNode = {
    key: testedKey,
    version: '1.2.3',
    mountNamespace,
    socketPath,
    socketOf: (_options, environment) => environment['PODVM_SOCKET'] ?? socketPath,
    mayHaveLogins: ({ LOGINS }) => Promise.resolve(LOGINS !== undefined),
    ...change,
  };
  const server = createServer((_, response) => response.writeHead(404).end());
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, stream, head) => {
    sockets.handleUpgrade(request, stream, head, (socket) => {
      if (request.url === '/v1/command') void serveCommand(socket, node);
      else answerRun(socket, runs, onRun);
    });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  const kill = () => {
    for (const socket of sockets.clients) socket.terminate();
  };
  return {
    socketPath,
    runs,
    kill,
    async [Symbol.asyncDispose]() {
      kill();
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
      await directory[Symbol.asyncDispose]();
    },
  };
}

function answerRun(socket: WebSocket, runs: AskedRun[], onRun: (run: AskedRun) => void): void {
  const messages: string[] = [];
  const run: AskedRun = {
    socket,
    messages,
    tell: (event) => socket.send(JSON.stringify(event)),
    print: (text, stream = 'stdout') =>
      socket.send(Buffer.concat([Buffer.from([stream === 'stdout' ? 1 : 2, 0, 0]), Buffer.from(text)])),
  };
  runs.push(run);
  socket.on('message', (data) => {
    messages.push(messageBytes(data).toString('utf8'));
    if (messages.length === 1) onRun(run);
  });
}
