import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import {
  type RunCommand,
  type RunEvent,
  type RunRequest,
  runCommandSchema,
  runRequestSchema,
  stderrStream,
  stdoutStream,
} from '#api/run.ts';
import type { PodOutcome } from '#api/pods.ts';
import type { Log } from '#host/log/log.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { Manifest, PodContainerStatus, RunningPod } from '#pod/pods.ts';
import type { NamedVolumes } from '#storage/named-volumes.ts';
import type { OutputChunk } from '#sandbox/sandbox.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { eventOf } from '../pods/describe-pod.ts';
import { errorBodyOf } from '../error-body.ts';
import { ensureVolumes, tellManifest, tellServices, workloadSource } from '../tell-manifest.ts';
import type { JobRun } from '../pods/job-run.ts';
import type { Jobs } from '../pods/jobs.ts';
import { parseJson } from '../http.ts';
import { type NodePods } from '../pods/node-pods.ts';
import type { NodeServices } from '../pods/node-services.ts';
import { leftTo, type LivePod } from '../pods/known-pod.ts';

/** Parts of the node that sessions need. */
export interface RunSessionParts {
  readonly pods: NodePods;
  readonly jobs: Jobs;
  readonly volumes: NamedVolumes;
  readonly services: NodeServices;
  readonly log: Log;
  /** Whether pods may outlive their client; false in a process that ends with a command. */
  readonly mayDetach: boolean;
}

/** Exit code of a run with a pod that could not run at all. */
export const refusedCode = 125;

/** Serves one `WS /v1/run`: see `#api/run.ts`. Ends when all its pods have ended, or were detached. */
export async function serveRun(
  socket: WebSocket,
  { pods, jobs: runs, volumes, services, log, mayDetach }: RunSessionParts,
): Promise<void> {
  const say = (event: RunEvent) => send(socket, JSON.stringify(event));
  let running: readonly LivePod[] = [];
  let jobs: readonly JobRun[] = [];
  const run = Symbol('run');
  /** Aborts when the client disconnects or is interrupted before any pod runs. */
  const leaving = new AbortController();
  const end = (how: 'terminate' | 'kill') => {
    leaving.abort();
    for (const job of jobs) job.stop(how);
    return endAll(running, how);
  };
  const gone = () => void end('terminate'); // their client has disconnected
  socket.once('close', gone);
  const { promise: detached, resolve: detach } = Promise.withResolvers<readonly Ended[]>();
  const leave = async () => {
    if (!mayDetach) return await say({ event: 'warning', message: endsWithCommand('detach').message });
    socket.off('close', gone);
    for (const live of running) await say({ event: 'podDetached', pod: shownName(live) });
    detach([]);
  };
  const first = firstMessage(socket, (data) => {
    const command = commandOf(textOf(data), log);
    if (command === 'detach') void leave();
    else if (command !== undefined) end(command).catch((error: unknown) => log.error('stop failed', error));
  });
  try {
    const request = parseJson(await first, runRequestSchema);
    if (request.detach && !mayDetach) throw endsWithCommand('detach', 'Leave -d out. ');
    const manifest = await tellManifest(request, say, leaving.signal);
    if (manifest === undefined) return await say({ event: 'finished', exitCode: 0 });
    await ensureVolumes(manifest, volumes, leaving.signal);
    await tellServices(manifest, services, say, request.detach ? undefined : run);
    if (leaving.signal.aborted) return await say({ event: 'finished', exitCode: 0 });
    let sources = 0;
    const followed = (live: LivePod) => {
      const name = hasSeveral(manifest) ? live.name : shownName(live);
      const firstSource = sources;
      sources += containersOf(live.pod).length;
      return request.detach ? followStart(live, name, say) : follow(live, { name, firstSource, socket });
    };
    running = startAll(request, manifest.pods, manifest, pods);
    const outcomes = running.map(followed);
    const ofJobs: Promise<Ended>[] = [];
    const { promise: lost, reject: lose } = Promise.withResolvers<never>();
    lost.catch(() => {});
    jobs = manifest.jobs.map((job) =>
      runs.run(job, {
        source: workloadSource(request, manifest),
        removeAtEnd: request.removeAtEnd,
        awaited: awaitedBy(request),
        onStart: (live) => {
          const following = followed(live);
          following.catch(lose);
          ofJobs.push(following);
        },
      }),
    );
    if (socket.readyState !== socket.OPEN) gone();
    const ofRuns = request.detach ? [] : jobs.map((job) => followJob(job, say));
    const allEnded = async () => {
      const [ended] = await Promise.all([
        Promise.race([Promise.all([...outcomes, ...ofRuns]), lost]),
        ...jobs.map(({ begun }) => begun), // then all pods that start at once are known
      ]);
      const ofJobPods = await Promise.race([Promise.all(ofJobs), lost]);
      return request.detach ? [...ended, ...ofJobPods] : ended; // a Job's outcome is not that of each pod
    };
    const finishes = await Promise.race([allEnded(), detached]);
    jobs = []; // those of a detached run are the node's
    await say({ event: 'finished', exitCode: manifest.refused.length > 0 ? refusedCode : firstFailure(finishes) });
  } catch (error) {
    await say({ event: 'failed', error: errorBodyOf(error) });
  } finally {
    await services.endRun(run);
    socket.off('close', gone);
    socket.close();
  }
}

/** `verb` completes `Cannot`. */
export const endsWithCommand = (verb: string, instead = '') =>
  new PodvmError('failedPrecondition', `Cannot ${verb}: the podvm that serves is a command, and its pods end with it`, {
    fix: `${instead}Try again when that command has ended: without --no-daemon and with the setting background, podvm starts a node that stays.`,
  });

/** Serves one `WS .../attach`. The pod keeps running without its client. */
export async function serveAttach(socket: WebSocket, find: () => LivePod, log: Log): Promise<void> {
  try {
    const live = find();
    socket.on('message', (data) => {
      const command = commandOf(textOf(data), log);
      if (command === undefined || command === 'detach') return; // a client that leaves only disconnects
      endAll([live], command).catch((error: unknown) => log.error('stop failed', error));
    });
    const { promise: left, resolve } = Promise.withResolvers<undefined>();
    socket.once('close', () => resolve(undefined));
    const finish = await Promise.race([follow(live, { name: live.name, firstSource: 0, socket }), left]);
    if (finish !== undefined) await send(socket, eventText({ event: 'finished', exitCode: finish.exitCode }));
  } catch (error) {
    await send(socket, eventText({ event: 'failed', error: errorBodyOf(error) }));
  } finally {
    socket.close();
  }
}

export const eventText = (event: RunEvent) => JSON.stringify(event);
const nameOf = ({ namespace, name }: LivePod) => `${namespace}/${name}`;
const shownName = (live: LivePod) => (live.namespace === 'default' ? live.name : nameOf(live));
const containersOf = ({ pod: { spec } }: RunningPod) => [...(spec.initContainers ?? []), ...spec.containers];

const awaitedBy = ({ detach }: RunRequest): 'end' | 'start' => (detach ? 'start' : 'end');

const hasSeveral = (manifest: Manifest) => manifest.pods.length + manifest.jobs.length > 1;

function startAll(request: RunRequest, wanted: readonly Pod[], manifest: Manifest, pods: NodePods): readonly LivePod[] {
  const { removeAtEnd, terminalSize } = request;
  return pods.start(
    wanted.map((pod) => ({ pod, ...workloadSource(request, manifest) })),
    {
      removeAtEnd,
      awaited: awaitedBy(request),
      ...(terminalSize && { terminalSize: { columns: terminalSize.Width, rows: terminalSize.Height } }),
    },
  );
}

async function followJob(run: JobRun, say: (event: RunEvent) => Promise<void>): Promise<Ended> {
  const finish = await Promise.race([run.finished, run.left]);
  const order = performance.now();
  const { namespace, name } = run.job.metadata;
  if (finish === undefined) {
    throw new PodvmError('unavailable', `Cannot follow Job ${namespace}/${name} any longer: its node ends`, {
      fix: 'The next node goes on with it: see `podvm get jobs`.',
    });
  }
  if (finish.exitCode !== 0) {
    await say({ event: 'warning', message: `Job ${namespace}/${name} has failed: ${finish.message ?? finish.reason}` });
  }
  return { ...finish, order };
}

/** Outcome of a pod, with a number that orders the ends of several pods. */
type Ended = PodOutcome & { readonly order: number };

/** Reports everything about one pod to the client. Resolves when the pod is over and all of it was sent. */
async function follow(
  live: LivePod,
  { name, firstSource, socket }: { readonly name: string; readonly firstSource: number; readonly socket: WebSocket },
): Promise<Ended> {
  const { pod } = live;
  const say = (event: RunEvent) => send(socket, eventText(event));
  const sources = new Map(containersOf(pod).map((container, at) => [container.name, firstSource + at]));
  using subscribed = new DisposableStack();
  subscribed.defer(pod.onEvent((event) => void say({ event: 'pod', pod: name, detail: eventOf(event) })));
  subscribed.defer(pod.onOutput((container, chunk) => send(socket, outputFrame(sources.get(container) ?? 0, chunk))));
  const unsubscribe = () => subscribed.dispose(); // for an attached client, whose pod keeps running
  socket.once('close', unsubscribe);
  for (const [container, number] of sources)
    await say({ event: 'source', number: number & 0xffff, pod: name, container });
  const ended = await endOf(live, name, say);
  socket.off('close', unsubscribe);
  return ended;
}

async function endOf(
  { pod, over, left }: LivePod,
  name: string,
  say: (event: RunEvent) => Promise<void>,
): Promise<Ended> {
  const finish = await Promise.race([pod.finished, left]);
  if (finish === undefined) throw leftTo(name);
  const order = performance.now();
  await say({ event: 'podFinished', pod: name, exitCode: finish.exitCode, reason: finish.message ?? finish.reason });
  await over;
  return { ...finish, order };
}

/** Reports the events of a detached pod until one of its containers runs or the pod ends. */
export async function followStart(
  live: LivePod,
  name: string,
  say: (event: RunEvent) => Promise<void>,
): Promise<Ended> {
  using subscribed = new DisposableStack();
  subscribed.defer(live.pod.onEvent((event) => void say({ event: 'pod', pod: name, detail: eventOf(event) })));
  const isStarted = await untilStarted(live);
  if (!isStarted) return await endOf(live, name, say);
  await say({ event: 'podDetached', pod: name });
  return { exitCode: 0, reason: 'Started', order: performance.now() };
}

/**
 * Resolves with true when a container has run, and with false if the pod ends without that. Errors: `unavailable` when
 * this process ends first.
 */
export async function untilStarted({ pod, left, name }: LivePod): Promise<boolean> {
  const hasRun = () => pod.status.containers.some(({ state }) => hasStarted(state));
  if (hasRun()) return true;
  const { promise, resolve } = Promise.withResolvers<void>();
  const leave = pod.onChange(() => hasRun() && resolve());
  const isLeft = await Promise.race([promise, pod.finished, left.then(() => 'left' as const)]);
  leave();
  if (isLeft === 'left') throw leftTo(name);
  return hasRun();
}

const hasStarted = (state: PodContainerStatus['state']) =>
  state.kind === 'running' || (state.kind === 'terminated' && state.reason !== 'StartError');

export function outputFrame(source: number, chunk: OutputChunk): Uint8Array {
  const frame = Buffer.allocUnsafe(3 + chunk.bytes.length);
  frame.writeUInt8(chunk.stream === 'stdout' ? stdoutStream : stderrStream, 0);
  frame.writeUInt16BE(source & 0xffff, 1); // pods of a Job may be more, and earlier ones have ended
  frame.set(chunk.bytes, 3);
  return frame;
}

function firstFailure(finishes: readonly Ended[]): number {
  return [...finishes].sort((a, b) => a.order - b.order).find((finish) => finish.exitCode !== 0)?.exitCode ?? 0;
}

function commandOf(text: string, log: Log): RunCommand['command'] | undefined {
  try {
    return parseJson(text, runCommandSchema).command;
  } catch (error) {
    log.error('unusable command from a client', error);
    return undefined;
  }
}

async function endAll(running: readonly LivePod[], how: 'terminate' | 'kill'): Promise<void> {
  await Promise.all(running.map(({ pod }) => pod[how]()));
}

/**
 * Resolves when the kernel has accepted the frame or the client is gone. Waiting for it slows a container down to the
 * client's pace.
 */
export function send(socket: WebSocket, data: string | Uint8Array): Promise<void> {
  if (socket.readyState !== socket.OPEN) return Promise.resolve();
  return new Promise((resolve) => {
    socket.send(data, () => resolve());
  });
}

/** A frame of a channel of `#api/exec.ts`. */
export function framed(to: number, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([to]), body]);
}

const textOf = (data: WebSocket.RawData): string => messageBytes(data).toString('utf8');

/** Waits for the first message. Later ones go to `onOther`, including those in the same packet. */
export async function firstMessage(socket: WebSocket, onOther: (data: WebSocket.RawData) => void): Promise<string> {
  return await new Promise((resolve, reject) => {
    socket.once('message', (data) => {
      resolve(textOf(data));
      socket.on('message', onOther);
    });
    socket.once('close', () => reject(new PodvmError('cancelled', 'Cannot run: the client disconnected')));
  });
}
