import { Readable } from 'node:stream';
import { kindOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { isThere } from '#host/file/files.ts';
import type { NodeDetails } from '#api/node.ts';
import { type PodDetails, stopRequestSchema } from '#api/pods.ts';
import type { PodTable } from '#pod/pod-table.ts';
import { checkCommand } from '#sandbox/container/process-size.ts';
import type { Exec, Sandboxes } from '#sandbox/sandbox.ts';
import { consoleLog } from '../log/console-log.ts';
import { detailsOf, summaryOf } from '../pods/describe-pod.ts';
import { drain } from '../pods/drain.ts';
import { endedLogs } from '../log/ended-logs.ts';
import { type EndedPods, endedSummaryOf } from '../record/ended-pods.ts';
import { measureOverhead } from '../pods/measure-overhead.ts';
import { type EventQuery, podEvents } from '../log/pod-events.ts';
import { nodeRoom } from '../pods/node-room.ts';
import { describePod } from '../pods/pod-description.ts';
import type { InputTarget } from '../session/input-session.ts';
import { readJson, sendJson, sendStream } from '../http.ts';
import { findKnown, findReached, nameOf } from '../pods/find-pods.ts';
import { foreignDetails, foreignSummary, notOurs } from '../pods/foreign-pods.ts';
import { type NodePods } from '../pods/node-pods.ts';
import { type KnownPod, type LivePod } from '../pods/known-pod.ts';
import { reached, type ReachedPod } from '../pods/reached-pod.ts';
import { lineQueryOf } from '../log/log-lines.ts';
import { chooseContainer, podLogs } from '../log/pod-logs.ts';
import type { Asked, Call, Routes } from '../routes.ts';

/** Calls that show pods and their node, and those that end all pods. */
export function podRoutes(pods: NodePods, { pods: running, sandboxes, ended, startNoMore }: PodRouteParts): Routes {
  return {
    'GET /v1/node': async ({ response }) => {
      const room = await nodeRoom(sandboxes);
      sendJson(response, 200, { waitingMachines: sandboxes.waitingMachines, ...room } satisfies NodeDetails);
    },
    'GET /v1/overhead': async ({ response, signal }) =>
      sendJson(response, 200, await measureOverhead(sandboxes, Date.now(), signal)),
    'GET /v1/pods': ({ query, response }) => {
      const ofEnded = query.get('ended') === 'true' ? pods.ended().map(endedSummaryOf) : [];
      sendJson(response, 200, [...running.list().map(summaryOf), ...pods.foreign().map(foreignSummary), ...ofEnded]);
    },
    'GET /v1/pods/:namespace/:name': async (call) => {
      const found = findKnown(pods, call);
      sendJson(call.response, 200, await detailsOfKnown(found, call.signal));
    },
    'GET /v1/pods/:namespace/:name/description': async (call) => {
      const described = { running, find: pods.find.bind(pods), sandboxes };
      sendJson(call.response, 200, await describePod(described, ...nameOf(call), call.signal));
    },
    'GET /v1/pods/:namespace/:name/manifest': async (call) => {
      const pod = findKnown(pods, call);
      if (pod.kind === 'foreign') throw notOurs(pod, 'show the YAML of');
      const source = pod.kind === 'live' ? pod.source : await ended.shownSource(pod);
      sendJson(call.response, 200, source.pod);
    },
    'GET /v1/events': async ({ query, response, signal }) => {
      const follow = query.get('follow') === 'true';
      const named = { namespace: query.get('namespace') ?? undefined, name: query.get('name') ?? undefined };
      const events = podEvents(pods, { follow, isWanted: wantedBy(pods, named, follow) }, signal);
      await sendStream(response, 'application/x-ndjson', events, signal);
    },
    'POST /v1/drain': async ({ request, response }) => {
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      startNoMore();
      sendJson(response, 200, await drain({ pods: running, sandboxes }, graceSeconds));
    },
    'GET /v1/pods/:namespace/:name/logs': (call) => sendLogs(findKnown(pods, call), ended, call),
    'GET /v1/pods/:namespace/:name/console': (call) =>
      sendConsole(findReached(pods, call, 'show the console of'), call),
  };
}

/**
 * Whose events are asked for. With `follow` a pod of that name may still begin. Errors: those of `NodePods.find`;
 * `failedPrecondition` for a pod of another program, which keeps its events.
 */
function wantedBy(
  pods: NodePods,
  { namespace, name }: { readonly namespace: string | undefined; readonly name: string | undefined },
  follow: boolean,
): EventQuery['isWanted'] {
  if (name === undefined) return (pod) => namespace === undefined || pod.namespace === namespace;
  try {
    const found = pods.find(namespace, name);
    if (found.kind === 'foreign') throw notOurs(found, 'show the events of');
    return (pod) => pod.namespace === found.namespace && pod.name === found.name;
  } catch (error) {
    if (!follow || kindOf(error) !== 'notFound') throw error;
    return (pod) => pod.name === name && (namespace === undefined || pod.namespace === namespace);
  }
}

async function detailsOfKnown(pod: KnownPod, signal: AbortSignal): Promise<PodDetails> {
  if (pod.kind === 'ended') return pod.details;
  return pod.kind === 'live' ? await detailsOf(pod.pod, signal) : await foreignDetails(pod, signal);
}

/** Sources of the answers about pods. */
export interface PodRouteParts {
  readonly pods: PodTable;
  readonly sandboxes: Sandboxes;
  readonly ended: EndedPods;
  /** Ends Jobs, and the starts of pods that are due. */
  readonly startNoMore: () => void;
}

async function sendLogs(pod: KnownPod, ended: EndedPods, { query, response, signal }: Call): Promise<void> {
  const tail = query.get('tail');
  const wanted = {
    container: query.get('container') ?? undefined,
    follow: query.get('follow') === 'true',
    previous: query.get('previous') === 'true',
    tailLines: tail === null ? undefined : Number.parseInt(tail, 10),
    lines: lineQueryOf(query),
  };
  if (pod.kind === 'foreign' && pod.owner === 'containerd') throw notOurs(pod, 'read logs of', 'logs');
  const chunks =
    pod.kind !== 'ended'
      ? podLogs(reached(pod), wanted, signal)
      : endedLogs(pod, (log) => ended.logPath(pod, log), wanted, signal);
  await sendStream(response, 'application/octet-stream', chunks, signal);
}

/** Limit of lines shown of a console that is kept in memory, which has 16 KiB. */
const maxConsoleLines = 1000;

async function sendConsole({ name, sandbox }: ReachedPod, { query, response, signal }: Call): Promise<void> {
  if (sandbox === undefined)
    throw new PodvmError('failedPrecondition', `Cannot show the console of ${name}: it has no machine yet`, {
      fix: 'Try again when `podvm ps` shows the pod as Running.',
    });
  const follow = query.get('follow') === 'true';
  const kept = follow || (await isThere(sandbox.consolePath)) ? [] : await sandbox.consoleTail(maxConsoleLines);
  const text =
    kept.length > 0
      ? Readable.from(kept.map((line) => `${printable(line)}\n`))
      : consoleLog(sandbox.consolePath, follow, sandbox.ended, signal);
  await sendStream(response, 'text/plain', text, signal);
}

/** Starts the command of an exec session. Errors: those of `findReached` and `Container.exec`. */
export async function startExec(pods: NodePods, asked: Asked): Promise<Exec> {
  const { query } = asked;
  const pod = findReached(pods, asked, 'run a command in');
  const container = chooseContainer(pod, query.get('container') ?? undefined);
  const command = query.getAll('command');
  checkCommand(`a command in ${pod.name}/${container}`, command);
  if (pod.sandbox?.status.isPaused === true)
    throw new PodvmError('failedPrecondition', `Cannot run a command in ${pod.name}/${container}: the pod is paused`, {
      fix: `Let it continue with \`podvm unpause ${pod.name}\`.`,
    });
  const live = pod.sandbox?.container(container);
  if (live === undefined || live.status.state !== 'running')
    throw new PodvmError('failedPrecondition', `Cannot run a command in ${pod.name}/${container}: it does not run`, {
      fix: `See why with \`podvm inspect ${pod.name}\`.`,
    });
  const size = (name: string) => (query.has(name) ? { [name]: Number(query.get(name)) } : {});
  const spec = {
    command,
    tty: query.get('tty') === 'true',
    stdin: query.get('stdin') === 'true',
    ...size('columns'),
    ...size('rows'),
  };
  return await live.exec(spec, AbortSignal.timeout(60_000));
}

/** Finds the container whose input a session carries. Errors: those of `findReached`; `failedPrecondition`. */
export function findInput(pods: NodePods, asked: Asked): InputTarget {
  const found = findKnown(pods, asked);
  if (found.kind === 'foreign') throw notOurs(found, 'pass input to');
  const pod = findReached(pods, asked, 'pass input to');
  const name = chooseContainer(pod, asked.query.get('container') ?? undefined);
  const container = pod.sandbox?.container(name);
  if (container?.status.state !== 'running') {
    throw new PodvmError('failedPrecondition', `Cannot pass input to ${pod.name}/${name}: it does not run`, {
      fix: `See why with \`podvm inspect ${pod.name}\`.`,
    });
  }
  return { container, stdinOnce: found.kind === 'live' && stdinOnce(found, name) };
}

const stdinOnce = ({ pod: { pod } }: LivePod, container: string): boolean =>
  pod.spec.containers.find(({ name }) => name === container)?.stdinOnce === true;

/** Finds the pod that a client attaches to. Errors: those of `findKnown`; `failedPrecondition`. */
export function findAttached(pods: NodePods, asked: Asked): LivePod {
  const found = findKnown(pods, asked);
  if (found.kind === 'live') return found;
  if (found.kind === 'foreign') throw notOurs(found, 'attach to');
  throw new PodvmError('failedPrecondition', `Cannot attach to ${found.name}: the pod has ended`, {
    fix: `Print what it wrote with \`podvm logs ${found.name}\`, or run it again with \`podvm start ${found.name}\`.`,
  });
}

/** Finds the pod whose port a client connects to. Errors: those of `findReached`. */
export const findForwarded = (pods: NodePods, asked: Asked): ReachedPod => findReached(pods, asked, 'connect to');
