import { inspect } from 'node:util';
import { serveKeeper } from './serve-keeper.ts';

/*
 * The keeper (`keeper-sockets.ts`). Arguments: the path of containerd's socket, and the directory of the records of tasks.
 */
process.title = 'podvm-keeper';
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined); // meant for the daemon
// A bug interrupts one call or one FIFO. If it ended the keeper, it would end all pods.
for (const name of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(name, (error: unknown) => void process.stderr.write(`${inspect(error)}\n`));
}
process.umask(0o077); // the sockets are root's
const [shimSocket = '', records = ''] = process.argv.slice(2);
await serveKeeper(shimSocket, records);
