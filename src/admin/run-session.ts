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
import type { Log } from '#host/log.ts';
import { problemText } from '#pod/manifest.ts';
import type { PodTable } from '#pod/pod-table.ts';
import type { Manifest, PodConfig, PodFinish, PodParts, RunningPod } from '#pod/pods.ts';
import { readManifests } from '#pod/read-manifests.ts';
import { startPod } from '#pod/start-pod.ts';
import type { OutputChunk } from '#sandbox/sandbox.ts';
import { eventOf } from './describe-pod.ts';
import { errorBodyOf } from './error-body.ts';
import { parseJson } from './http.ts';

export interface RunParts extends PodParts {
  readonly pods: PodTable;
  /** Facts about this node for every pod. */
  readonly node: Pick<PodConfig, 'nodeName' | 'hostIP' | 'seccompDirectory' | 'machine'>;
  readonly log: Log;
}

/** Limit of pods in one run. */
const maxPodsPerRun = 256;

/** Exit code of a run with a pod that could not run at all. */
const refusedCode = 125;

/** Serves one `WS /v1/run`: see `#api/run.ts`. Ends when all its pods have ended and been removed. */
export async function serveRun(socket: WebSocket, parts: RunParts): Promise<void> {
  const say = (event: RunEvent) => send(socket, JSON.stringify(event));
  const abort = new AbortController();
  const running: RunningPod[] = [];
  /** Aborts when the client disconnects or is interrupted before anything runs. */
  const leaving = new AbortController();
  const gone = () => {
    leaving.abort();
    void endAll(running, 'terminate'); // their client has disconnected
  };
  socket.once('close', gone);
  const first = firstMessage(socket, (data) => {
    const command = commandOf(textOf(data), parts.log);
    if (command === undefined) return;
    leaving.abort();
    endAll(running, command).catch((error: unknown) => parts.log.error('stop failed', error));
  });
  try {
    const request = parseJson(await first, runRequestSchema);
    const manifest = await tellManifest(request, say, leaving.signal);
    if (manifest === undefined) return await say({ event: 'finished', exitCode: 0 });
    await using undo = new AsyncDisposableStack();
    const outcomes = startAll(request, manifest, parts, abort.signal, running, undo).map((pod, index) =>
      follow(pod, index, manifest, say, socket),
    );
    if (socket.readyState !== socket.OPEN) gone();
    const finishes = await Promise.all(outcomes);
    await Promise.all(running.map((pod) => pod.remove()));
    await say({ event: 'finished', exitCode: manifest.refused.length > 0 ? refusedCode : firstFailure(finishes) });
  } catch (error) {
    abort.abort(error);
    await Promise.all(running.map((pod) => pod.remove()));
    await say({ event: 'failed', error: errorBodyOf(error) });
  } finally {
    socket.off('close', gone);
    socket.close();
  }
}

/**
 * Reads the manifest; returns undefined after an abort of `signal`. Errors: those of `readManifests`; `invalid` when
 * there is nothing to run.
 */
async function tellManifest(
  request: RunRequest,
  say: (event: RunEvent) => Promise<void>,
  signal: AbortSignal,
): Promise<Manifest | undefined> {
  const manifest = await readManifests(request.files, signal).catch((error: unknown) => {
    if (signal.aborted) return undefined;
    throw error;
  });
  if (manifest === undefined) return undefined;
  for (const warning of manifest.warnings) await say({ event: 'warning', message: problemText(warning) });
  const names = request.files.map((file) => file.name).join(', ');
  if (manifest.pods.length === 0) {
    throw new PodvmError('invalid', `Cannot run ${names}: it contains no Pod`, {
      fix: 'Pass a file with `kind: Pod`.',
    });
  }
  if (manifest.pods.length > maxPodsPerRun) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${names}: at most ${maxPodsPerRun} pods can run at once, got ${manifest.pods.length}`,
      { fix: 'Run the files in several commands.' },
    );
  }
  for (const { namespace, name, problems } of manifest.refused) {
    const pod = namespace === 'default' ? name : `${namespace}/${name}`;
    await say({ event: 'podRefused', pod, problems: problems.map(problemText) });
  }
  return signal.aborted ? undefined : manifest;
}

function startAll(
  request: RunRequest,
  manifest: Manifest,
  parts: RunParts,
  signal: AbortSignal,
  running: RunningPod[],
  undo: AsyncDisposableStack,
): readonly RunningPod[] {
  const taken = manifest.pods.find(({ metadata }) => parts.pods.has(metadata.namespace, metadata.name));
  if (taken !== undefined) {
    const name = `${taken.metadata.namespace}/${taken.metadata.name}`;
    throw new PodvmError('alreadyExists', `Cannot run pod ${name}: a pod of that name is running`, {
      fix: `Stop it with \`podvm stop ${name}\`, or rename the new pod.`,
    });
  }
  const { terminalSize } = request;
  const config: PodConfig = {
    ...parts.node,
    configMaps: manifest.configMaps,
    secrets: manifest.secrets,
    network: request.network,
    ...(terminalSize === undefined ? {} : { terminalSize: { columns: terminalSize.Width, rows: terminalSize.Height } }),
  };
  for (const pod of manifest.pods) {
    const started = startPod(pod, config, parts, signal);
    running.push(started);
    undo.use(parts.pods.add(started));
  }
  return running;
}

/** Reports all events of one pod to the client. Resolves when it has finished and everything was sent. */
async function follow(
  pod: RunningPod,
  index: number,
  manifest: Manifest,
  say: (event: RunEvent) => Promise<void>,
  socket: WebSocket,
): Promise<PodFinish & { readonly order: number }> {
  const name = manifest.pods.length > 1 || pod.namespace === 'default' ? pod.name : `${pod.namespace}/${pod.name}`;
  const sources = new Map<string, number>();
  const containers = [...(pod.pod.spec.initContainers ?? []), ...pod.pod.spec.containers];
  const base = manifest.pods
    .slice(0, index)
    .reduce((sum, { spec }) => sum + (spec.initContainers ?? []).length + spec.containers.length, 0);
  for (const [offset, container] of containers.entries()) sources.set(container.name, base + offset);

  pod.onEvent((event) => void say({ event: 'pod', pod: name, detail: eventOf(event) }));
  pod.onOutput((container, chunk) => send(socket, outputFrame(sources.get(container) ?? 0, chunk)));
  for (const [container, number] of sources) await say({ event: 'source', number, pod: name, container });
  const finish = await pod.finished;
  const order = performance.now();
  await say({ event: 'podFinished', pod: name, exitCode: finish.exitCode, reason: finish.message ?? finish.reason });
  return { ...finish, order };
}

export function outputFrame(source: number, chunk: OutputChunk): Uint8Array {
  const frame = Buffer.allocUnsafe(3 + chunk.bytes.length);
  frame.writeUInt8(chunk.stream === 'stdout' ? stdoutStream : stderrStream, 0);
  frame.writeUInt16BE(source, 1);
  frame.set(chunk.bytes, 3);
  return frame;
}

function firstFailure(finishes: readonly (PodFinish & { readonly order: number })[]): number {
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

async function endAll(running: readonly RunningPod[], how: 'terminate' | 'kill'): Promise<void> {
  await Promise.all(running.map((pod) => pod[how]()));
}

/**
 * Resolves when the kernel has accepted the frame or the client is gone, which slows a container down to the client's
 * pace.
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

export function textOf(data: WebSocket.RawData): string {
  if (data instanceof ArrayBuffer) return Buffer.from(data).toString('utf8');
  return (Array.isArray(data) ? Buffer.concat(data) : data).toString('utf8');
}

/** Waits for the first message. Later ones go to `onOther`, also those in the same packet. */
async function firstMessage(socket: WebSocket, onOther: (data: WebSocket.RawData) => void): Promise<string> {
  return await new Promise((resolve, reject) => {
    socket.once('message', (data) => {
      resolve(textOf(data));
      socket.on('message', onOther);
    });
    socket.once('close', () => reject(new PodvmError('cancelled', 'Cannot run: the client disconnected')));
  });
}
