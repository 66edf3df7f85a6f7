import { type DescribedLimits, type PodDescription, podDescriptionSchema } from '#api/description.ts';
import { diagnosisSchema, type Finding, troublesOf } from '#api/finding.ts';
import { kindOf, messageOf } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { forEachName } from './for-each-name.ts';
import { podNames, podPath } from './pod-name.ts';
import { age, fixLine, table, type Terminal, write } from '../terminal/terminal.ts';

/**
 * Prints the descriptions of pods, and the troubles that an examination of each finds; an error in the place of one that cannot
 * be described. Returns the exit code.
 */
export async function describeCommand(client: Client, words: readonly string[], terminal: Terminal): Promise<number> {
  let between = '';
  return await forEachName(podNames(words), terminal, async (pod) => {
    const [described, troubles] = await Promise.all([
      client.get(`${podPath(pod)}/description`, podDescriptionSchema),
      troublesIn(client, pod),
    ]);
    await write(terminal.stdout, `${between}${descriptionText(described, Date.now(), troubles)}`);
    between = '\n\n'; // as kubectl has it
  });
}

async function troublesIn(client: Client, pod: string): Promise<readonly Finding[]> {
  try {
    return troublesOf(await client.get(`${podPath(pod)}/diagnosis`, diagnosisSchema));
  } catch (error) {
    if (['failedPrecondition', 'notFound'].includes(kindOf(error))) return []; // it has ended, or no machine yet
    return [{ name: 'examination', status: 'skip', detail: messageOf(error) }];
  }
}

/** Formats the description in sections, the most important first. */
export function descriptionText(pod: PodDescription, nowMs: number, troubles: readonly Finding[] = []): string {
  const sections = [
    headOf(pod, nowMs),
    section('Troubles', troublesText(troubles)),
    section('Containers', containersOf(pod, nowMs)),
    section('Events', eventsOf(pod, nowMs)),
    section('Memory and processor', figuresOf(pod)),
    section('Start', timelineOf(pod)),
    section('Mounts', mountsOf(pod)),
    section('Machine', machineOf(pod)),
    section('Last lines of the console', pod.console.map((line) => `${line}\n`).join('')),
  ];
  return sections.filter((text) => text !== '').join('\n');
}

const section = (title: string, body: string): string =>
  body === '' ? '' : `${title}:\n${body.replaceAll(/^(?=.)/gm, '  ')}`;

const lines = (rows: readonly (readonly [name: string, value: string | undefined])[]): string =>
  rows.map(([name, value]) => (value === undefined || value === '' ? '' : `${name.padEnd(12)}${value}\n`)).join('');

function headOf(pod: PodDescription, nowMs: number): string {
  const why = pod.reason === undefined || pod.reason === pod.phase ? '' : ` (${pod.reason})`;
  return lines([
    ['Pod:', `${pod.namespace}/${pod.name}`],
    ['State:', `${pod.phase}${why}`],
    ['Failure:', pod.machine?.failure],
    ['Age:', age(pod.createdAt, nowMs)],
    ['Made by:', pod.madeBy],
    ['Addresses:', pod.addresses.join(', ')],
    ['Slow:', slowStepsOf(pod)],
    ['Unmeasured:', pod.machine?.unmeasured],
  ]);
}

const troublesText = (troubles: readonly Finding[]): string =>
  troubles
    .map(({ name, status, detail, fix }) => {
      const told = `${status === 'fail' ? '! ' : '  '}${name}: ${detail}\n`;
      return fix === undefined ? told : `${told}${fixLine(fix)}\n`;
    })
    .join('');

function slowStepsOf({ machine }: PodDescription): string | undefined {
  const slow = machine?.timeline.filter(({ isSlow }) => isSlow) ?? [];
  if (slow.length === 0) return undefined;
  return slow
    .map(({ name, ms, medianMs = 0 }) => `${name}: ${timeText(ms)} instead of ${timeText(medianMs)}`)
    .join(', ');
}

function containersOf({ containers }: PodDescription, nowMs: number): string {
  if (containers.length === 0) return '';
  const rows = containers.map((container) => [
    container.name,
    [
      container.state,
      container.reason,
      container.exitCode === undefined ? undefined : `exit code ${container.exitCode}`,
    ]
      .filter((word) => word !== undefined)
      .join(', '),
    String(container.restartCount ?? 0),
    container.startedAt === undefined ? '-' : age(container.startedAt, nowMs),
    container.image,
  ]);
  const messages = containers.flatMap(({ name, message }) => (message === undefined ? [] : [`${name}: ${message}\n`]));
  return table(['NAME', 'STATE', 'RESTARTS', 'AGE', 'IMAGE'], rows) + messages.join('');
}

const eventsOf = ({ events }: PodDescription, nowMs: number): string =>
  events
    .map(({ at, type, reason, message, fix, container }) => {
      const who = container === undefined ? '' : ` ${container}:`;
      const told = `${age(at, nowMs).padEnd(5)}${type === 'Warning' ? '! ' : '  '}${reason}:${who} ${message}\n`;
      return fix === undefined ? told : `${told}     ${fixLine(fix)}\n`;
    })
    .join('');

function figuresOf({ machine, containers }: PodDescription): string {
  if (machine?.use === undefined && machine?.cost === undefined) return '';
  const rows: (readonly string[])[] = containers.map(({ name, use, limits }) => rowOf(name, use, limits));
  rows.push(rowOf('(pod)', machine.use, machine.limits));
  const { cost, use } = machine;
  if (cost === undefined) return table(figureHead, rows);
  rows.push([
    '(machine)',
    bytesText(cost.privateBytes),
    '-',
    bytesText(cost.guestMemoryBytes),
    secondsText(cost.cpuSeconds),
    '-',
    '-',
  ]);
  const overhead =
    use === undefined
      ? ''
      : `The machine takes ${bytesText(cost.privateBytes - use.memoryBytes)} and ${secondsText(cost.cpuSeconds - use.cpuSeconds)} ` +
        `of processor time beyond the pod; ${bytesText(cost.sharedBytes)} are shared with other machines. Its processors ` +
        `waited ${secondsText(cost.waitSeconds)} for the node's.\n`;
  return table(figureHead, rows) + overhead;
}

const figureHead = ['WHAT', 'MEMORY', 'REQUEST', 'LIMIT', 'CPU TIME', 'CPU LIMIT', 'THREADS'];

function rowOf(
  name: string,
  use: { readonly memoryBytes: number; readonly cpuSeconds: number; readonly threads: number } | undefined,
  { memoryLimitBytes, memoryRequestBytes, cpuLimitMillis }: DescribedLimits,
): readonly string[] {
  return [
    name,
    use === undefined ? '-' : bytesText(use.memoryBytes),
    memoryRequestBytes === undefined ? 'none' : bytesText(memoryRequestBytes),
    memoryLimitBytes === undefined ? 'none' : bytesText(memoryLimitBytes),
    use === undefined ? '-' : secondsText(use.cpuSeconds),
    cpuLimitMillis === undefined ? 'none' : `${cpuLimitMillis / 1000} cores`,
    use === undefined ? '-' : String(use.threads),
  ];
}

function timelineOf({ machine }: PodDescription): string {
  if (machine === undefined || machine.timeline.length === 0) return '';
  const rows = machine.timeline.map(({ name, ms, medianMs, isSlow }) => [
    name,
    timeText(ms),
    medianMs === undefined ? '-' : timeText(medianMs),
    isSlow ? 'slow' : '',
  ]);
  return table(['STEP', 'TIME', 'MEDIAN OF THE NODE', ''], rows);
}

function mountsOf({ containers }: PodDescription): string {
  const rows = containers.flatMap(({ name, mounts }) => mounts.map(({ mountPath, mode }) => [name, mountPath, mode]));
  return rows.length === 0 ? '' : table(['CONTAINER', 'PATH', 'MODE'], rows);
}

function machineOf({ machine, containers }: PodDescription): string {
  if (machine === undefined) return '';
  const { jailWeaknesses: weaknesses } = machine;
  const jail = weaknesses === undefined ? undefined : weaknesses.length === 0 ? 'complete' : weaknesses.join('; ');
  return lines([
    ['id:', machine.id],
    ['state:', machine.state],
    ['runs by:', machine.accelerator],
    ['pid:', machine.pid === undefined ? undefined : String(machine.pid)],
    ['jail:', jail],
    [
      'versions:',
      Object.entries(machine.parts)
        .map(([name, version]) => `${name} ${version}`)
        .join(', '),
    ],
    ['warnings:', machine.warnings.join('; ')],
    ...containers.map(({ name, logPath }) => [`log ${name}:`, logPath] as const),
  ]);
}

const timeText = (ms: number): string => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`);
const secondsText = (seconds: number): string => `${seconds.toFixed(1)} s`;
const bytesText = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
