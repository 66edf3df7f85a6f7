import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NamespaceMode } from '#cri/schema/api_pb.ts';
import { linesOf, logRecords } from '../test/log-lines.ts';
import { type CriNode, openCriNode } from './cri-node.ts';
import { type Figures, Sheet } from './figures.ts';
import type { SuiteOptions } from './suite.ts';

const image = { image: 'localhost/podvm/base:latest' };
const lineCount = 200_000;
const kills = 5;
const pollMs = 200;
const restMs = 2_000;

/**
 * Kills a daemon and lets the next one take its pods over, several times with one pod and with `n`.
 * `adoptOne.takenOverMs`: for the only pod, according to the daemon's log. `adoptOne.servingMs` and
 * `adoptAll.servingMs`: from the kill until the next daemon serves, including its start. `adoptAll.takenOverMs`: from
 * the first pod taken over to the last. `adoptOne.pauseMs`: the longest pause in the log of a container that writes
 * `lineCount` lines meanwhile. `adoptOne.linesLostOrTwice`: how many of these lines are missing or repeated.
 */
export async function adoptSuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  const directory = await mkdtemp('/var/tmp/podvm-bench-adopt-');
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  const node = undo.use(await openCriNode(0));
  await startPod(node, 'bench-adopt-1', directory, writer);
  const log = join(directory, 'bench-adopt-1', 'main.log');
  for (let kill = 1; kill <= kills; kill += 1) {
    while ((await lastLine(log)) < (lineCount / (kills + 1)) * kill) await delay(pollMs);
    await replace(node, 1, 'adoptOne', sheet, say);
  }
  const { pauseMs, wrong } = await judgeLines(log);
  sheet.add('adoptOne.pauseMs', pauseMs);
  sheet.add('adoptOne.linesLostOrTwice', wrong);
  say(`${lineCount} lines: ${wrong} missing or repeated, longest pause ${Math.round(pauseMs)} ms`);
  for (let at = 2; at <= count; at += 1) {
    await startPod(node, `bench-adopt-${at}`, directory, 'exec sleep 100000');
    say(`${at} pods run`);
  }
  for (let kill = 1; kill <= kills; kill += 1) {
    await delay(restMs);
    await replace(node, count, 'adoptAll', sheet, say);
  }
  return sheet.figures;
}

/** Writes lines until after the last kill. */
const writer = `i=0; while [ $i -lt ${lineCount} ]; do i=$((i+1)); echo line $i; done; exec sleep 100000`;

async function startPod({ runtime }: CriNode, name: string, directory: string, script: string): Promise<void> {
  const sandboxConfig = {
    metadata: { name, namespace: 'bench', uid: `uid-${name}`, attempt: 0 },
    logDirectory: join(directory, name),
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } }, // as a kubelet
  };
  const config = { metadata: { name: 'main' }, image, command: ['sh', '-c', script], logPath: 'main.log' };
  const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig });
  const { containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig });
  await runtime.startContainer({ containerId });
}

/** Errors: a pod that was not taken over. */
async function replace(
  node: CriNode,
  count: number,
  prefix: string,
  sheet: Sheet,
  say: SuiteOptions['say'],
): Promise<void> {
  const killedMs = performance.now();
  const log = await node.replace();
  const servingMs = performance.now() - killedMs;
  const taken = [...log.matchAll(/^(\S+) info sandbox taken over .*\btotal=([\d.]+)/gm)];
  if (taken.length !== count) throw new Error(`${taken.length} pods of ${count} were taken over: ${log}`);
  const ends = taken.map(([, at = '']) => Date.parse(at));
  const totals = taken.map(([, , total]) => Number(total));
  const firstMs = (ends[0] ?? Number.NaN) - (totals[0] ?? Number.NaN);
  const takenOverMs = Math.max(...ends) - firstMs;
  sheet.add(`${prefix}.servingMs`, servingMs);
  sheet.add(`${prefix}.takenOverMs`, takenOverMs);
  if (count === 1) say(stepsOf(log));
  say(`${count} taken over in ${Math.round(takenOverMs)} ms, serving after ${Math.round(servingMs)} ms`);
}

/** The longest steps of the only takeover, such as `agent answered 21 ms`. */
function stepsOf(log: string): string {
  const [line = ''] = /^.* info sandbox taken over .*$/m.exec(log) ?? [];
  const steps = [...line.matchAll(/ ([a-z_]+)=([\d.]+)(?= |$)/g)].map(([, step = '', ms]) => ({
    step,
    ms: Number(ms),
  }));
  const longest = steps.filter(({ step, ms }) => step !== 'total' && ms >= 2);
  return longest.map(({ step, ms }) => `${step.replaceAll('_', ' ')} ${Math.round(ms)} ms`).join(', ');
}

/** Number of the last line in the log. */
async function lastLine(path: string): Promise<number> {
  const record = (await readFile(path, 'latin1')).slice(-1000).split('\n').at(-2) ?? '';
  return Number(/ line (\d+)$/.exec(record)?.[1] ?? 0);
}

/** Waits until the log has the last line. */
async function judgeLines(path: string): Promise<{ readonly pauseMs: number; readonly wrong: number }> {
  for (;;) {
    const records = await logRecords(path);
    const lines = linesOf(records);
    if (lines.at(-1) !== `line ${lineCount}`) {
      await delay(pollMs);
      continue;
    }
    const times = records.map(({ time }) => Date.parse(time));
    const pauses = times.slice(1).map((time, at) => time - (times[at] ?? time));
    const seen = new Map<string, number>();
    for (const line of lines) seen.set(line, (seen.get(line) ?? 0) + 1);
    let wrong = 0;
    for (let number = 1; number <= lineCount; number += 1) {
      wrong += Math.abs((seen.get(`line ${number}`) ?? 0) - 1);
      seen.delete(`line ${number}`);
    }
    return { pauseMs: pauses.reduce((most, each) => Math.max(most, each), 0), wrong: wrong + seen.size };
  }
}
