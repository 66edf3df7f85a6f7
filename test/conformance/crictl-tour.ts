import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import { Crictl } from './crictl.ts';
import type { Spec } from './report.ts';

const busybox = 'registry.k8s.io/e2e-test-images/busybox:1.29-2';
const nginx = 'registry.k8s.io/e2e-test-images/nginx:1.14-2';
const transports = ['spdy', 'websocket'] as const;

/** One pod, with a web server and a shell that waits for a client to attach. */
interface Tour {
  readonly crictl: Crictl;
  readonly pod: string;
  readonly web: string;
  readonly shell: string;
}

export interface TourOptions {
  /** The crictl. */
  readonly program: string;
  readonly endpoint: string;
  readonly work: string;
  /** Kills the daemon, and starts the next one; undefined for a daemon that the test did not start. */
  readonly replaceDaemon: (() => Promise<void>) | undefined;
  readonly signal: AbortSignal;
}

/**
 * Interactive uses of crictl that critest does not cover: terminals, detaching, large inputs, clients that die, and a
 * daemon that is killed between them. Each step counts as a spec.
 */
export async function tourWithCrictl({ program, endpoint, work, replaceDaemon, signal }: TourOptions) {
  const crictl = new Crictl(program, endpoint, signal);
  const specs: Spec[] = [];
  const step = async <T>(name: string, walk: () => Promise<T>): Promise<T | undefined> => {
    const startedMs = Date.now();
    const done = (outcome: Spec['outcome'], message = '') =>
      specs.push({ name: `crictl ${name}`, outcome, message, ms: Date.now() - startedMs });
    try {
      const result = await walk();
      done('passed');
      return result;
    } catch (error) {
      done('failed', messageOf(error));
      return undefined;
    }
  };
  const tour = await step('runp, create and start make what pods and ps list', () => arrive(crictl, work));
  if (tour === undefined) return specs;
  const [first, ...others] = transports;
  for (const [name, walk] of streamingSteps(first)) await step(name, () => walk(tour));
  if (replaceDaemon !== undefined) await step('the next daemon has the pod', () => survives(tour, replaceDaemon));
  for (const [name, walk] of [...others.flatMap(streamingSteps), ...steps]) await step(name, () => walk(tour));
  await step('stopp and rmp leave nothing', () => leave(tour));
  return specs;
}

async function arrive(crictl: Crictl, work: string): Promise<Tour> {
  const directory = join(work, 'tour');
  await mkdir(join(directory, 'logs'), { recursive: true });
  const write = async (name: string, config: object) => {
    const path = join(directory, name);
    await writeFile(path, JSON.stringify(config));
    return path;
  };
  const podConfig = await write('pod.json', {
    metadata: { name: 'tour', namespace: 'default', uid: 'tour-1', attempt: 0 },
    log_directory: join(directory, 'logs'),
    linux: {},
  });
  for (const image of [busybox, nginx]) await crictl.run('pull', image);
  const pod = (await crictl.run('runp', podConfig)).trim();
  const container = async (name: string, image: string, more: object) => {
    const config = { metadata: { name }, image: { image }, log_path: `${name}.log`, linux: {}, ...more };
    return (await crictl.run('create', pod, await write(`${name}.json`, config), podConfig)).trim();
  };
  const web = await container('web', nginx, {});
  const shell = await container('shell', busybox, { command: ['sh'], stdin: true, tty: true });
  await crictl.run('start', web, shell);
  assert.equal((await crictl.run('pods', '-q', '--state', 'ready')).trim(), pod);
  const running = (await crictl.run('ps', '-q', '--no-trunc')).trim().split('\n');
  assert.deepEqual(running.sort(), [web, shell].sort());
  return { crictl, pod, web, shell };
}

type Step = readonly [name: string, walk: (tour: Tour) => Promise<void>];

const streamingSteps = (transport: string): readonly Step[] => [
  [`exec tells the outputs apart and the exit code (${transport})`, (tour) => execFails(tour, transport)],
  [`exec -i carries a large input and its end (${transport})`, (tour) => execReads(tour, transport)],
  [`exec -it has a terminal of the right size (${transport})`, (tour) => execAtTerminal(tour, transport)],
  [`port-forward carries connections beside each other (${transport})`, (tour) => forwards(tour, transport)],
  [`exec leaves nothing of a client that was killed (${transport})`, (tour) => execIsKilled(tour, transport)],
  [`attach -it talks to the shell, and ^P^Q leaves it running (${transport})`, (tour) => attaches(tour, transport)],
];

const steps: readonly Step[] = [
  ['exec answers a hundred clients at one time', execTogether],
  ['logs prints what the containers said', logs],
  ['stats, statsp, imagefsinfo, inspect and inspectp have figures and addresses', looksAround],
  ['attach -it ends with the shell, and logs -f by itself', lastWords],
];

async function survives({ crictl, pod, web, shell }: Tour, replaceDaemon: () => Promise<void>): Promise<void> {
  const before = await crictl.json(statusSchema, 'inspect', shell);
  await replaceDaemon();
  assert.equal((await crictl.run('pods', '-q', '--state', 'ready')).trim(), pod);
  const running = (await crictl.run('ps', '-q', '--no-trunc')).trim().split('\n');
  assert.deepEqual(running.sort(), [web, shell].sort());
  assert.deepEqual(await crictl.json(statusSchema, 'inspect', shell), before);
}

const statusSchema = v.object({ status: v.object({ startedAt: v.string(), state: v.string(), logPath: v.string() }) });

async function execFails({ crictl, web }: Tour, transport: string): Promise<void> {
  const script = 'echo out; echo err >&2; exit 7';
  const { code, stdout, stderr } = await crictl.try(['exec', '--transport', transport, web, 'sh', '-c', script]);
  assert.deepEqual([code, stdout], [1, 'out\n']);
  assert.match(stderr, /^err\n/);
  assert.match(stderr, /exit code 7/);
}

async function execReads({ crictl, web }: Tour, transport: string): Promise<void> {
  const input = randomBytes(4 * 1024 * 1024);
  const { stdout } = await crictl.try(['exec', '-i', '--transport', transport, web, 'sha256sum'], input);
  assert.equal(stdout.split(' ')[0], createHash('sha256').update(input).digest('hex'));
}

async function execAtTerminal({ crictl, web }: Tour, transport: string): Promise<void> {
  const script = 'until [ "$(stty size)" = "31 99" ]; do sleep 0.1; done; tty; read answer; echo "got $answer"; exit 3';
  await using typed = crictl.type('exec', '-it', '--transport', transport, web, 'sh', '-c', script);
  await typed.says(/\/dev\/pts\/\d+/);
  typed.write('forty-two\n');
  await typed.says(/got forty-two/);
  await typed.says(/exit code 3/);
  assert.equal(await typed.ends(), 1);
}

async function forwards({ crictl, pod }: Tour, transport: string): Promise<void> {
  await using forward = crictl.begin('port-forward', '--transport', transport, pod, ':80');
  const [, port] = await forward.says(/Forwarding from 127\.0\.0\.1:(\d+) -> 80/);
  const pages = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
      return await response.text();
    }),
  );
  for (const page of pages) assert.match(page, /Welcome to nginx!/);
}

async function execIsKilled({ crictl, web }: Tour, transport: string): Promise<void> {
  await using exec = crictl.begin('exec', '--transport', transport, web, 'sh', '-c', 'echo begun; sleep 4321');
  await exec.says(/begun/);
  exec.child.kill('SIGKILL');
  await exec.ends();
  const script = 'for i in $(seq 100); do pgrep -f "sleep 432[1]" >/dev/null || exit 0; sleep 0.1; done; exit 1';
  await crictl.run('exec', web, 'sh', '-c', script);
}

async function execTogether({ crictl, web }: Tour): Promise<void> {
  const answers = await Promise.all(
    Array.from({ length: 100 }, async (_, at) => {
      const { code, stdout } = await crictl.try(['exec', web, 'echo', String(at)]);
      return `${code} ${stdout}`;
    }),
  );
  assert.deepEqual(
    answers,
    answers.map((_, at) => `0 ${at}\n`),
  );
}

async function attaches({ crictl, shell }: Tour, transport: string): Promise<void> {
  await using typed = crictl.type('attach', '-it', '--transport', transport, shell);
  typed.write('echo "sum: $((40 + 2))"\n');
  await typed.says(/sum: 42/);
  typed.write('\u0010\u0011');
  await typed.ends();
  assert.equal((await crictl.run('ps', '-q', '--no-trunc', '--id', shell)).trim(), shell);
}

async function logs({ crictl, web, shell }: Tour): Promise<void> {
  assert.match(await crictl.run('logs', web), /GET \/ HTTP\/1\.1/);
  assert.match(await crictl.run('logs', shell), /sum: 42/);
}

const amount = v.object({ value: v.pipe(v.string(), v.regex(/^[1-9]\d*$/)) });

async function looksAround({ crictl, pod, web, shell }: Tour): Promise<void> {
  const used = v.object({
    memory: v.object({ workingSetBytes: amount }),
    cpu: v.object({ usageCoreNanoSeconds: amount }),
  });
  const { stats } = await crictl.json(v.object({ stats: v.array(used) }), 'stats');
  assert.equal(stats.length, [web, shell].length);
  const podStats = v.object({ stats: v.array(v.object({ linux: used })) });
  assert.equal((await crictl.json(podStats, 'statsp')).stats.length, 1);
  const fileSystems = v.object({ imageFilesystems: v.pipe(v.array(v.object({ usedBytes: amount })), v.minLength(1)) });
  await crictl.json(v.object({ status: fileSystems }), 'imagefsinfo');
  const container = v.object({ status: v.object({ state: v.literal('CONTAINER_RUNNING'), logPath: v.string() }) });
  assert.match((await crictl.json(container, 'inspect', web)).status.logPath, /web\.log$/);
  const sandbox = v.object({ status: v.object({ network: v.object({ ip: v.pipe(v.string(), v.ip()) }) }) });
  await crictl.json(sandbox, 'inspectp', pod);
}

async function lastWords({ crictl, shell }: Tour): Promise<void> {
  await using followed = crictl.begin('logs', '-f', shell);
  await using typed = crictl.type('attach', '-it', shell);
  typed.write('echo "last $((6 * 7))"; exit 0\n');
  assert.equal(await typed.ends(), 0);
  await followed.says(/last 42/);
  assert.equal(await followed.ends(), 0);
  const state = v.object({ status: v.object({ state: v.literal('CONTAINER_EXITED'), exitCode: v.number() }) });
  assert.equal((await crictl.json(state, 'inspect', shell)).status.exitCode, 0);
}

async function leave({ crictl, pod }: Tour): Promise<void> {
  await crictl.run('stopp', pod);
  await crictl.run('rmp', pod);
  assert.equal(await crictl.run('pods', '-q', '--id', pod), '');
  assert.equal(await crictl.run('ps', '-aq', '--pod', pod), '');
}
