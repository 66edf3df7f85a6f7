import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { hasEnded } from '#api/pod-actions.ts';
import type { Log } from '#host/log/log.ts';
import type { Container, Exec } from '#sandbox/sandbox.ts';
import { checkCommand } from '#sandbox/container/process-size.ts';
import { notOurs, refused } from '../pods/foreign-pods.ts';
import type { NodePods } from '../pods/node-pods.ts';
import { findKnown } from '../pods/find-pods.ts';
import type { Asked } from '../routes.ts';

/** Time to pull the image and make the container, in `ms`. */
const makeMs = 600_000;
const startMs = 60_000;
const sigkill = 9;

/** Starts a container beside those of a pod (`WS .../debug`). Errors: those of `RunningPod.debug`, and refusals. */
export async function startDebug(pods: NodePods, asked: Asked, log: Log): Promise<Exec> {
  const { query } = asked;
  const found = findKnown(pods, asked);
  if (found.kind === 'foreign') throw notOurs(found, 'debug', 'debug');
  if (found.kind === 'ended') throw refused(hasEnded(found.name, 'debug'));
  const target = query.get('container');
  const command = query.getAll('command');
  checkCommand(`a command beside ${found.name}`, command);
  const wish = {
    ...{ image: query.get('image') ?? '', command },
    ...{ tty: query.get('tty') === 'true', stdin: query.get('stdin') === 'true' },
    ...(target === null ? {} : { target }),
  };
  const container = await found.pod.debug(wish, AbortSignal.timeout(makeMs));
  const size = query.has('columns') ? [Number(query.get('columns')), Number(query.get('rows'))] : undefined;
  return await startAsExec(container, { tty: wish.tty, size }, log);
}

/** Starts the container as if it were a command, and removes it at its end. */
async function startAsExec(
  container: Container,
  { tty, size }: { readonly tty: boolean; readonly size: readonly number[] | undefined },
  log: Log,
): Promise<Exec> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const output = container.follow(async ({ stream, bytes }) => {
    const to = stream === 'stderr' && !tty ? stderr : stdout;
    if (!to.write(bytes)) await once(to, 'drain');
  });
  const ended = output.ended.then(() => {
    stdout.end();
    stderr.end();
  });
  const remove = async () => {
    const { name } = container.status;
    await container
      .remove(AbortSignal.timeout(startMs))
      .catch((error: unknown) => log.error('debugger not removed', error, { container: name }));
  };
  const exited = container.exited.then(async ({ exitCode }) => {
    await ended;
    await remove();
    return { exitCode };
  });
  const signal = AbortSignal.timeout(startMs);
  const [columns = 0, rows = 0] = size ?? [];
  try {
    if (tty && columns > 0 && rows > 0) await container.resize(columns, rows, signal);
    await container.start(signal);
  } catch (error) {
    await container.stop(0, AbortSignal.timeout(startMs)).catch(() => undefined); // it has not run: `exited` removes it
    throw error;
  }
  return {
    ...(container.stdin === undefined ? {} : { stdin: container.stdin }),
    stdout,
    ...(tty ? {} : { stderr }),
    resize: (width, height) => container.resize(width, height, AbortSignal.timeout(startMs)),
    kill: () => container.kill(sigkill, AbortSignal.timeout(startMs)), // its shell is not the first of its processes
    exited,
  };
}
