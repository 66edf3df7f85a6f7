import { once } from 'node:events';
import { Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import type { Log } from '#host/log/log.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { forwardedTo } from './listener-port.ts';

/** Forwarded connections of one pod. */
const maxConnections = 256;
const dialTimeoutMs = 10_000;
const startTimeoutMs = 20_000;
const nftTimeoutMs = 30_000;

/** How containerd reaches the ports of pods. */
export interface PodPorts {
  readonly hold: typeof holdConnections;
  readonly forward: typeof forwardPorts;
}

/**
 * Lets connections to 127.0.0.1 in the netns of a pod wait until `forwardPorts` takes them: their first segment is dropped, which the
 * kernel sends again after a second, and the kernel would refuse them otherwise. Errors: those of `nft` and nsenter.
 */
export async function holdConnections({ spec: { netns } }: Pick<Sandbox, 'spec'>): Promise<void> {
  if (netns !== undefined) await replaceTable(netns, held);
}

/**
 * Forwards ports for containerd, which answers `port-forward` itself: it connects to 127.0.0.1 in the netns of the pod,
 * where no program of the pod listens. These connections are redirected to one listener, and the agent connects to the
 * port in the guest. Disposing closes the listener; the rule goes with the netns. Errors: those of `nft`, nsenter and
 * Node.
 */
export async function forwardPorts(sandbox: Sandbox, log: Log): Promise<Disposable> {
  const netns = sandbox.spec.netns ?? '';
  try {
    return await forwardIn(netns, sandbox, log);
  } catch (error) {
    await replaceTable(netns, '').catch(() => undefined); // what waits is refused
    throw error;
  }
}

async function forwardIn(netns: string, sandbox: Sandbox, log: Log): Promise<Disposable> {
  const server = await listenIn(netns);
  server.maxConnections = maxConnections;
  server.unref();
  outliveAcceptErrors(server);
  server.on('connection', (socket: Socket) => {
    forward(socket, sandbox).catch((error: unknown) => {
      log.debug('connection not forwarded', { sandbox: sandbox.id, why: messageOf(error) });
      socket.resetAndDestroy();
    });
  });
  try {
    await replaceTable(netns, redirected);
  } catch (error) {
    server.close();
    throw error;
  }
  return { [Symbol.dispose]: () => void server.close() };
}

const table = 'podvm_forward';
const held = `
  chain input {
    type filter hook input priority 0
    iifname "lo" ip daddr 127.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn drop
  }`;
const redirected = `
  chain output {
    type nat hook output priority -100
    oifname "lo" ip daddr 127.0.0.0/8 tcp dport != ${forwardedTo} redirect to :${forwardedTo}
  }`;

/** Replaces the table in one step, also that of an earlier daemon. */
async function replaceTable(netns: string, chains: string): Promise<void> {
  const script = `add table ip ${table}\ndelete table ip ${table}\ntable ip ${table} {${chains}\n}\n`;
  await run('nsenter', [`--net=${netns}`, 'nft', script], { timeoutMs: nftTimeoutMs });
}

async function listenIn(netns: string): Promise<Server> {
  const program = join(programDirectory, entryPoint('src/shim/ports/listener-process'));
  const child = await startChild('nsenter', [`--net=${netns}`, process.execPath, program], {
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    env: defaultEnv(),
    failing: `Cannot listen in ${netns}`,
  });
  using deadline = openDeadline(startTimeoutMs);
  const ended = once(child, 'exit');
  try {
    const [, server] = (await Promise.race([
      once(child, 'message', { signal: deadline.signal }),
      ended.then(() => [undefined, undefined]),
    ])) as readonly unknown[];
    if (server instanceof Server) return withHalfOpen(server);
    throw new PodvmError('internal', `Cannot listen in ${netns}: the listener has ended`, {
      fix: 'See whether another program listens in the network namespace of the pod.',
    });
  } finally {
    if (child.exitCode === null) child.kill('SIGKILL');
    await ended;
  }
}

/** Clients end their own half first and still wait for the answer. */
function withHalfOpen(server: Server): Server {
  return Object.assign(server, { allowHalfOpen: true });
}

async function forward(socket: Socket, sandbox: Sandbox): Promise<void> {
  socket.on('error', () => undefined);
  const port = await portAsked(socket.remotePort ?? 0, sandbox.spec.netns ?? '');
  using deadline = openDeadline(dialTimeoutMs);
  const pod = await sandbox.dial(port, undefined, deadline.signal);
  const over = Promise.withResolvers<void>();
  pod.once('error', over.reject);
  socket.once('close', over.resolve);
  if (socket.destroyed) over.resolve();
  socket.pipe(pod).pipe(socket); // each direction ends by itself
  try {
    await over.promise;
  } finally {
    pod.on('error', () => undefined); // errors of bytes that were still on the way
    pod.destroy();
  }
}

/**
 * Returns the port to which a client in a netns has connected. The kernel lists the client's socket, too, with the
 * address before the redirection (proc_net_tcp). Errors: `notFound`.
 */
async function portAsked(clientPort: number, netns: string): Promise<number> {
  const { stdout } = await run('nsenter', [`--net=${netns}`, 'cat', '/proc/self/net/tcp']);
  const port = portIn(stdout, clientPort);
  if (port !== undefined) return port;
  throw new PodvmError('notFound', 'Cannot forward a connection: its client is not in the netns of the pod', {
    fix: 'Connect to a port of 127.0.0.1.',
  });
}

/** Finds the client's socket in a table of sockets, and returns its remote port. */
export function portIn(table: string, clientPort: number): number | undefined {
  for (const line of table.split('\n')) {
    const [, local, remote] = /^\s*\d+: [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{8}:([0-9A-F]{4}) /.exec(line) ?? [];
    if (local === undefined || remote === undefined) continue;
    const port = Number.parseInt(remote, 16);
    if (Number.parseInt(local, 16) === clientPort && port !== 0) return port;
  }
  return undefined;
}
