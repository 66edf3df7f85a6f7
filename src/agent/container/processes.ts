import type { MetricFigures, ProcessFigures } from '#wire/figures.ts';
import { isUlimitName } from '#wire/figures.ts';
import { limits } from '#wire/limits.ts';
import type { Files } from '#engine/engine.ts';

type Parts = Pick<Files, 'readText' | 'readLink' | 'status' | 'list'>;

const maxBytes = 4096;
const stateOf: Readonly<Record<string, keyof ProcessFigures['states']>> = {
  R: 'running',
  S: 'sleeping',
  I: 'sleeping',
  T: 'stopped',
  t: 'stopped',
  D: 'uninterruptible',
};

/**
 * Inspects each process, within limits, since the agent does nothing else in that time. Returns undefined if there are
 * too many. A process that ends during the inspection counts as far as it was read.
 */
export function measureProcesses(parts: Parts, pids: readonly number[] | undefined): ProcessFigures | undefined {
  if (pids === undefined || pids.length > limits.maxCountedProcesses) return undefined;
  const states = { running: 0, sleeping: 0, stopped: 0, uninterruptible: 0 };
  let descriptors = 0;
  let sockets: number | undefined = 0;
  for (const pid of pids) {
    const state = stateOf[stateLetterOf(parts, pid)];
    if (state !== undefined) states[state] += 1;
    // The size of this directory is the number of descriptors (proc_pid_fd(5)), which avoids listing millions.
    descriptors += parts.status(`/proc/${pid}/fd`)?.size ?? 0;
    if (descriptors > limits.maxCountedDescriptors) sockets = undefined;
    if (sockets !== undefined) sockets += socketsOf(parts, pid);
  }
  return { processes: pids.length, states, descriptors, ...(sockets === undefined ? {} : { sockets }) };
}

/** Soft limits of a process, by the kernel's names, without unlimited ones. Empty when the process is gone. */
export function softLimitsOf(parts: Parts, pid: number): MetricFigures['ulimits'] {
  const lines = unlessGone(() => parts.readText(`/proc/${pid}/limits`, maxBytes).split('\n'), []);
  return lines.flatMap((line) => {
    // Columns have a fixed width: one space separates words of a name, more separate columns.
    const [, words = '', soft = ''] = /^(Max(?: [a-z]+)+) {2,}(\d+) /.exec(line) ?? [];
    const name = words.toLowerCase().replaceAll(' ', '_');
    return isUlimitName(name) && Number.isSafeInteger(Number(soft)) ? [{ name, soft: Number(soft) }] : [];
  });
}

/** Returns the letter after the command's name, which may contain any character (proc_pid_stat(5)). */
function stateLetterOf(parts: Parts, pid: number): string {
  const text = unlessGone(() => parts.readText(`/proc/${pid}/stat`, maxBytes), '');
  return text.charAt(text.lastIndexOf(')') + 2);
}

function socketsOf(parts: Parts, pid: number): number {
  const directory = `/proc/${pid}/fd`;
  return unlessGone(() => parts.list(directory), []).filter((fd) =>
    unlessGone(() => parts.readLink(`${directory}/${fd}`).startsWith('socket:'), false),
  ).length;
}

/** Handles processes that end, or close descriptors, while they are inspected. */
function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise; // ENOENT or ESRCH; after other errors, too, the next process can be inspected
  }
}
