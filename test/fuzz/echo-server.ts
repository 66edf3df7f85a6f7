import { createServer, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import { ports } from './agent-steps.ts';

/* Servers that the fuzzed agent dials. Runs in the agent's network namespace until its input ends. */
const block = Buffer.alloc(65_536, 0x61);

const servers: Readonly<Record<keyof typeof ports, (socket: Socket) => void>> = {
  echo: (socket) => void pipeline(socket, socket, () => undefined),
  discard: (socket) => void socket.resume(),
  flood: (socket) => {
    const more = () => {
      while (socket.writable && socket.write(block));
    };
    socket.on('drain', more);
    socket.resume();
    more();
  },
  close: (socket) => void socket.resetAndDestroy(),
};

for (const [name, serve] of Object.entries(servers)) {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(ports[name as keyof typeof ports], '::', () => process.stdout.write('.')); // SAFE: a key of `ports`
}
process.stdin.on('end', () => process.exit(0)).resume();
