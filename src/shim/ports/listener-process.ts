import { createServer } from 'node:net';
import { forwardedTo } from './listener-port.ts';

/*
 * Runs in a network namespace, makes a listener there, and hands it to the process that started it: a socket stays in the
 * namespace in which it was made.
 */
const server = createServer();
server.listen({ host: '127.0.0.1', port: forwardedTo }, () =>
  process.send?.('listening', server, {}, () => process.exit(0)),
);
