import { spawn } from 'node:child_process';
import { join } from 'node:path';
import * as v from 'valibot';
import { podDetailsSchema, type PodDetails } from '#api/pods.ts';
import { run } from '#host/process/run.ts';
import type { SuiteOptions } from './suite.ts';
import { type Figures, Sheet } from './figures.ts';
import { environment } from './node.ts';

const podvm = join(import.meta.dirname, '../podvm');
const roundTimeoutMs = 120_000;

const pod = (name: string) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, annotations: { podvm.dev/template: "off" } }
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, "echo first; exec sleep 3600"]
`;

interface Round {
  readonly coldBootMs: number;
  readonly firstOutputMs: number;
  readonly agentRssKiB: number;
  readonly vmmPssKiB: number;
}

/**
 * Measures a user's whole path, without a template: `podvm run` of a pod that prints a line, image present, nothing
 * else running. `coldBootMs`: from the VMM's start to the agent's first answer. `firstOutputMs`: from the shell to the
 * container's first byte. Memory is read when the pod idles.
 */
export async function bootSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  await run(podvm, ['image', 'build-base'], { env: environment(), timeoutMs: 600_000 });
  const sheet = new Sheet();
  for (let number = 1; number <= rounds; number += 1) {
    const round = await bootOnce(`bench-boot-${number}`);
    say(
      `round ${number}: agent after ${round.coldBootMs} ms, first output after ${Math.round(round.firstOutputMs)} ms`,
    );
    for (const [name, value] of Object.entries(round)) sheet.add(name, value as number); // SAFE: all of a Round
  }
  return sheet.figures;
}

async function bootOnce(name: string): Promise<Round> {
  const startedMs = performance.now();
  const child = spawn(podvm, ['run', '-'], { stdio: ['pipe', 'pipe', 'inherit'], env: environment() });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
  });
  const tooLate = setTimeout(() => child.kill('SIGKILL'), roundTimeoutMs);
  try {
    child.stdin.end(pod(name));
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      void ended.then(() => reject(new Error(`pod ${name} ended without a word`)));
    });
    const firstOutputMs = performance.now() - startedMs;
    const details = await inspect(name);
    const phase = (wanted: string) => details.sandbox?.phases.find((found) => found.name === wanted)?.ms ?? Number.NaN;
    const { agentRssKiB = Number.NaN, vmmPssKiB = Number.NaN } = details.sandbox?.stats ?? {};
    return {
      coldBootMs: Math.round(phase('machine started') + phase('agent answered')),
      firstOutputMs,
      agentRssKiB,
      vmmPssKiB,
    };
  } finally {
    await run(podvm, ['stop', name, '--grace', '0'], { env: environment() }).catch(() => child.kill('SIGKILL'));
    await ended;
    clearTimeout(tooLate);
  }
}

async function inspect(name: string): Promise<PodDetails> {
  const { stdout } = await run(podvm, ['inspect', name], { env: environment() });
  return v.parse(podDetailsSchema, JSON.parse(stdout));
}
