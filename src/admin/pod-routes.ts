import { PodvmError } from '#base/errors.ts';
import type { NodeDetails } from '#api/node.ts';
import { stopRequestSchema } from '#api/pods.ts';
import type { PodTable } from '#pod/pod-table.ts';
import type { RunningPod } from '#pod/pods.ts';
import { checkCommand } from '#sandbox/container/process-size.ts';
import type { Exec, Sandboxes } from '#sandbox/sandbox.ts';
import { consoleLog } from './console-log.ts';
import { detailsOf, summaryOf } from './describe-pod.ts';
import { drain } from './drain.ts';
import { measureOverhead } from './measure-overhead.ts';
import { describePod } from './pod-description.ts';
import type { InputTarget } from './input-session.ts';
import { readJson, sendJson, sendStream } from './http.ts';
import { chooseContainer, podLogs } from './pod-logs.ts';
import type { Asked, Call, Routes } from './routes.ts';

/** The calls that concern pods and their node. */
export function podRoutes(pods: PodTable, sandboxes: Sandboxes): Routes {
  const withPod =
    (answer: (pod: RunningPod, call: Call) => Promise<void>) =>
    (call: Call): Promise<void> =>
      answer(findPod(pods, call), call);
  return {
    'GET /v1/node': ({ response }) =>
      sendJson(response, 200, { waitingMachines: sandboxes.waitingMachines } satisfies NodeDetails),
    'GET /v1/overhead': async ({ response, signal }) =>
      sendJson(response, 200, await measureOverhead(sandboxes, Date.now(), signal)),
    'GET /v1/pods': ({ response }) => sendJson(response, 200, pods.list().map(summaryOf)),
    'GET /v1/pods/:namespace/:name': withPod(async (pod, { response, signal }) => {
      sendJson(response, 200, await detailsOf(pod, signal));
    }),
    'GET /v1/pods/:namespace/:name/description': async ({ segment, response, signal }) => {
      const namespace = segment('namespace');
      const within = namespace === '_' ? undefined : namespace;
      sendJson(response, 200, await describePod({ pods, sandboxes }, within, segment('name'), signal));
    },
    'POST /v1/pods/:namespace/:name/stop': withPod(async (pod, { request, response }) => {
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      await pod.terminate(graceSeconds);
      sendJson(response, 200, summaryOf(pod));
    }),
    'POST /v1/drain': async ({ request, response }) => {
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      sendJson(response, 200, await drain({ pods, sandboxes }, graceSeconds));
    },
    'GET /v1/pods/:namespace/:name/logs': withPod(sendLogs),
    'GET /v1/pods/:namespace/:name/console': withPod(sendConsole),
  };
}

async function sendLogs(pod: RunningPod, { query, response, signal }: Call): Promise<void> {
  const tail = query.get('tail');
  const wanted = {
    container: query.get('container') ?? undefined,
    follow: query.get('follow') === 'true',
    previous: query.get('previous') === 'true',
    tailLines: tail === null ? undefined : Number.parseInt(tail, 10),
  };
  await sendStream(response, 'application/octet-stream', podLogs(pod, wanted, signal), signal);
}

async function sendConsole({ name, sandbox }: RunningPod, { query, response, signal }: Call): Promise<void> {
  if (sandbox === undefined)
    throw new PodvmError('failedPrecondition', `Cannot show the console of ${name}: it has no machine yet`, {
      fix: 'Try again when `podvm ps` shows the pod as Running.',
    });
  const text = consoleLog(sandbox.consolePath, query.get('follow') === 'true', sandbox.ended, signal);
  await sendStream(response, 'text/plain', text, signal);
}

/** Starts the command that a session asks for. Errors: those of `findPod` and `Container.exec`. */
export async function startExec(pods: PodTable, asked: Asked): Promise<Exec> {
  const { query } = asked;
  const pod = findPod(pods, asked);
  const container = chooseContainer(pod, query.get('container') ?? undefined);
  const command = query.getAll('command');
  checkCommand(`a command in ${pod.name}/${container}`, command);
  const live = pod.sandbox?.container(container);
  if (live === undefined)
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

/** Finds the container whose input a session carries. Errors: those of `findPod`; `failedPrecondition`. */
export function findInput(pods: PodTable, asked: Asked): InputTarget {
  const pod = findPod(pods, asked);
  const name = chooseContainer(pod, asked.query.get('container') ?? undefined);
  const container = pod.sandbox?.container(name);
  if (container?.status.state !== 'running') {
    throw new PodvmError('failedPrecondition', `Cannot pass input to ${pod.name}/${name}: it does not run`, {
      fix: `See why with \`podvm inspect ${pod.name}\`.`,
    });
  }
  return { container, stdinOnce: pod.pod.spec.containers.find((it) => it.name === name)?.stdinOnce === true };
}

function findPod(pods: PodTable, { segment }: Asked): RunningPod {
  const namespace = segment('namespace');
  return pods.find(namespace === '_' ? undefined : namespace, segment('name'));
}
