import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { channel } from '#api/exec.ts';
import { nodeDetailsSchema } from '#api/node.ts';
import { podDetailsSchema, type PodDetails } from '#api/pods.ts';
import { createClient } from '#cli/client.ts';
import { readConfiguration } from '#daemon/configuration/configuration.ts';
import { run } from '#host/process/run.ts';
import { callersEnv } from '../test/conformance/callers-env.ts';

export const podvm = join(import.meta.dirname, '../podvm');
const outputTimeoutMs = 600_000;
const maxOutputChars = 64 * 1024;
const { root, socketPath } = readConfiguration({}, process.env, join(import.meta.dirname, '..'));
const client = createClient(socketPath);

/** State directory of all benchmarks. */
export const nodeRoot = root;

/** Environment of every podvm that a benchmark starts. */
export function environment(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  return callersEnv({ PODVM_BACKGROUND: 'off', ...more });
}

export interface NodeOptions {
  readonly poolSize: number;
  /** Nominal memory of its machines, in `MiB`; default: the node's own choice. */
  readonly memoryMiB?: number;
}

/** A podvm process that serves like a daemon: an idle pod of its own keeps it alive. */
export interface Node extends AsyncDisposable {
  readonly pid: number;
  /** Runs pods in the foreground of another podvm. */
  start(yaml: string): RunningPods;
  inspect(pod: string): Promise<PodDetails>;
  /** An exec of `true` over the admin socket, until its exit code is there, in `ms`. */
  execMs(pod: string): Promise<number>;
  /** From the shell to the end of `podvm exec POD -- true`, in `ms`. */
  execCommandMs(pod: string): Promise<number>;
}

export interface RunningPods extends AsyncDisposable {
  /** Waits for that many lines of output; returns the time of each, in `ms` since the shell started the command. */
  lines(count: number): Promise<readonly number[]>;
  /** Returns the output of the pods, when they have ended by themselves. */
  finished(): Promise<string>;
}

export async function openNode({ poolSize, memoryMiB }: NodeOptions): Promise<Node> {
  const env = environment({
    PODVM_POOL: String(poolSize),
    ...(memoryMiB === undefined ? {} : { PODVM_MACHINE_MEMORY_MIB: String(memoryMiB) }),
  });
  const keeper = startPods(idlePods('keeper', 1), env);
  await keeper.lines(1);
  return {
    pid: keeper.pid,
    start: (yaml) => startPods(yaml, environment()),
    inspect: async (pod) => {
      const { stdout } = await run(podvm, ['inspect', pod], { env: environment() });
      return v.parse(podDetailsSchema, JSON.parse(stdout));
    },
    execMs,
    execCommandMs: async (pod) => {
      const startedMs = performance.now();
      await run(podvm, ['exec', pod, '--', 'true'], { env: environment() });
      return performance.now() - startedMs;
    },
    [Symbol.asyncDispose]: () => keeper[Symbol.asyncDispose](),
  };
}

async function execMs(pod: string): Promise<number> {
  const startedMs = performance.now();
  const socket = client.open(`/v1/pods/_/${pod}/exec?tty=false&stdin=false&command=true`);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('message', (data: Buffer) => {
        if (data[0] !== channel.status) return;
        if (data.subarray(1).toString() === '{"exitCode":0}') resolve();
        else reject(new Error(`exec in ${pod}: ${data.subarray(1).toString()}`));
      });
      socket.once('error', reject);
      socket.once('close', () => reject(new Error(`exec in ${pod}: closed`)));
    });
    return performance.now() - startedMs;
  } finally {
    socket.terminate();
  }
}

/** Waits until that many machines wait in the pool. */
export async function untilWaiting(count: number): Promise<void> {
  const deadline = AbortSignal.timeout(outputTimeoutMs);
  while ((await client.get('/v1/node', nodeDetailsSchema)).waitingMachines < count) {
    deadline.throwIfAborted();
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
}

/** A manifest of `count` pods `NAME-1`, `NAME-2`, ..., each of which prints a line and sleeps. */
export function idlePods(name: string, count: number): string {
  const names = count === 1 ? [name] : Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
  return names
    .map(
      (each) => `---
apiVersion: v1
kind: Pod
metadata: { name: ${each} }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, "echo up; exec sleep 100000"]
`,
    )
    .join('');
}

/** Runs pods in the foreground of another podvm, with options of `podvm run`. */
export const startOf = (yaml: string, options: readonly string[]): RunningPods =>
  startPods(yaml, environment(), options);

function startPods(
  yaml: string,
  env: Record<string, string>,
  options: readonly string[] = [],
): RunningPods & { readonly pid: number } {
  const startedMs = performance.now();
  const child = spawn(podvm, ['run', ...options, '-'], { stdio: ['pipe', 'pipe', 'pipe'], env });
  child.stdin.end(yaml);
  const times: number[] = [];
  let said = '';
  let output = '';
  let wake = Promise.withResolvers<void>();
  child.stdout.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-maxOutputChars);
    for (const byte of chunk) if (byte === 0x0a) times.push(performance.now() - startedMs);
    wake.resolve();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2000);
  });
  const ended = once(child, 'close').then(() => wake.resolve());
  const deadline = AbortSignal.timeout(outputTimeoutMs);
  deadline.addEventListener('abort', () => wake.resolve());
  return {
    pid: child.pid ?? 0,
    lines: async (count) => {
      while (times.length < count) {
        if (child.exitCode !== null || deadline.aborted) {
          throw new Error(`podvm gave ${times.length} of ${count} lines: ${said}`);
        }
        wake = Promise.withResolvers();
        await wake.promise;
      }
      return times.slice(0, count);
    },
    finished: async () => {
      await ended;
      if (child.exitCode !== 0) throw new Error(`podvm ended with ${child.exitCode}: ${said}`);
      return output;
    },
    async [Symbol.asyncDispose]() {
      await stop(child, ended);
    },
  };
}

/** Stops it as Ctrl-C does, twice if necessary. */
async function stop(child: ChildProcess, ended: Promise<void>): Promise<void> {
  child.kill('SIGINT');
  const impatient = setTimeout(() => child.kill('SIGINT'), 30_000);
  await ended;
  clearTimeout(impatient);
}

/** All host processes whose command line names the sandbox: VMM and jail. */
export async function processesOf(sandboxId: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).includes(sandboxId)),
  );
  return pids.filter((_, index) => found[index]);
}

/** Sums over processes, in `KiB` (proc(5), smaps_rollup), without those that have ended: helpers of a machine do. */
export async function memoryOf(pids: readonly number[]): Promise<{ anonymousKiB: number; pssKiB: number }> {
  let [anonymousKiB, pssKiB] = [0, 0];
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    anonymousKiB += Number(/^Anonymous:\s+(\d+)/m.exec(text)?.[1]);
    pssKiB += Number(/^Pss:\s+(\d+)/m.exec(text)?.[1]);
  }
  return { anonymousKiB, pssKiB };
}

/** Processor time of a process so far, in `ms`. */
export async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10; // ticks of 10 ms
}
