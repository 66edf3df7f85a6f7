import type { Finding } from '#api/finding.ts';
import type { ExaminedContainer, Examination, GuestView, Seen } from '#sandbox/figures/examination.ts';
import type { MetricFigures } from '#sandbox/figures/sandbox-stats.ts';

const slowAnswerMs = 1000;
/** Difference of the clocks that certificates and protocols do not notice, in `ms`. */
const worthClockMs = 2000;
/** Part of the memory limit that is nearly all, and of the periods that are throttled. */
const worthMemory = 0.9;
const worthThrottled = 0.25;
/** Percent of the time that tasks wait. */
const worthPressure = { cpu: 50, memory: 10, io: 50 } as const;

export function answerFinding(answer: Seen<number>, pod: string): Finding {
  const name = 'agent';
  if ('why' in answer) {
    return {
      name,
      status: 'fail',
      detail: `the guest does not answer: ${answer.why}`,
      fix: `See its last lines with \`podvm console ${pod}\`. The node ends a machine that stays silent; until then, restart the pod.`,
    };
  }
  const detail = `answers in ${answer.value.toFixed(1)} ms`;
  if (answer.value <= slowAnswerMs) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'The node or the guest is busy: compare `podvm top` with the limits.' };
}

export function clockFinding({ clockAheadMs, clockErrorMs }: GuestView): Finding {
  const name = 'clock';
  const seconds = Math.abs(clockAheadMs) / 1000;
  const way = clockAheadMs < 0 ? 'behind' : 'ahead of';
  const detail = `${seconds.toFixed(3)} s ${way} the host's (within ${(clockErrorMs / 1000).toFixed(3)} s)`;
  if (Math.abs(clockAheadMs) <= worthClockMs + clockErrorMs) return { name, status: 'ok', detail };
  return {
    name,
    status: 'warn',
    detail,
    fix: "The host's clock was set, or a container with CAP_SYS_TIME has set the guest's. Restart the pod.",
  };
}

export function memoryFinding(figures: MetricFigures, { pressure }: GuestView): Finding {
  const name = 'memory';
  const { memoryBytes, inactiveFileBytes, memoryLimitBytes: limit } = figures;
  const used = Math.max(0, memoryBytes - inactiveFileBytes);
  const mib = (bytes: number) => (bytes / 1024 / 1024).toFixed(1);
  const detail = `${mib(used)} MiB of ${limit === undefined ? 'no limit' : `${mib(limit)} MiB`}${waiting(pressure.memory)}`;
  const isNear = limit !== undefined && used >= worthMemory * limit;
  if (!isNear && (pressure.memory ?? 0) < worthPressure.memory) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'Raise the memory limit, or look for a leak with `podvm top`.' };
}

export function processorFinding({ cpuPeriods, cpuThrottledPeriods }: MetricFigures, { pressure }: GuestView): Finding {
  const name = 'processor';
  const throttled = cpuPeriods === 0 ? 0 : cpuThrottledPeriods / cpuPeriods;
  const detail = `throttled in ${Math.round(100 * throttled)} % of its time${waiting(pressure.cpu)}`;
  if (throttled < worthThrottled && (pressure.cpu ?? 0) < worthPressure.cpu) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'Raise the CPU limit, or let fewer processes run at a time.' };
}

export function diskFinding({ pressure: { io } }: GuestView): Finding {
  const name = 'disk';
  if (io === undefined) return { name, status: 'skip', detail: 'the kernel does not measure how long tasks wait' };
  const detail = `tasks wait ${io.toFixed(1)} % of the time`;
  if (io < worthPressure.io) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'A disk of the node is slow or busy: look at its own use.' };
}

const waiting = (percent: number | undefined): string =>
  percent === undefined ? '' : `; tasks wait ${percent.toFixed(1)} % of the time`;

/** Processes that the kernel has killed for lack of memory. */
export function oomFinding(containers: Examination['containers'], ofPod: Seen<MetricFigures>): Finding {
  const name = 'out of memory';
  if ('why' in ofPod) return { name, status: 'skip', detail: ofPod.why };
  const killed = containers.flatMap(({ name: container, oomKills }: ExaminedContainer) =>
    'value' in oomKills && oomKills.value > 0 ? [`${container}: ${oomKills.value}`] : [],
  );
  if (killed.length === 0 && ofPod.value.oomKills === 0) return { name, status: 'ok', detail: 'no process was killed' };
  const detail = `${ofPod.value.oomKills} killed${killed.length === 0 ? '' : ` (${killed.join(', ')})`}`;
  return { name, status: 'warn', detail, fix: 'Raise the memory limit of the container, or look for a leak.' };
}
