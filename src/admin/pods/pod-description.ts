import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { DescribedContainer, DescribedLimits, PodDescription } from '#api/description.ts';
import type { ContainerSummary } from '#api/pods.ts';
import { readConfinement, weaknesses } from '#host/jail/confinement.ts';
import { openDeadline } from '#host/deadline.ts';
import type { PodTable } from '#pod/pod-table.ts';
import type { HostFigures } from '#sandbox/figures/host-figures.ts';
import type { SandboxStats } from '#sandbox/figures/sandbox-stats.ts';
import { memoryRequestOf } from '#sandbox/resources.ts';
import type { Container, Resources, Sandbox, Sandboxes } from '#sandbox/sandbox.ts';
import { containerOf, eventOf, summaryOf } from './describe-pod.ts';
import type { EndedPod } from '../record/ended-pods.ts';
import { ownerOf } from './foreign-pods.ts';
import { type KnownPod } from './known-pod.ts';

/** Time in which a guest must answer, in `ms`. A pod whose guest hangs is described without its figures. */
const answerMs = 2000;
const consoleLines = 40;
/** Least number of starts for a median to compare with. */
const minStarts = 3;
/** Least excess of a slow step over the median, in `ms`. */
const slowMs = 100;

type Machine = NonNullable<PodDescription['machine']>;

/** Pods that can be described. */
export interface DescribedPods {
  readonly running: PodTable;
  /** Finds a pod of this process, also one that has ended. Errors: those of `NodePods.find`. */
  readonly find: (namespace: string | undefined, name: string) => KnownPod;
  readonly sandboxes: Sandboxes;
}

/** Describes a pod of this process, or the newest sandbox of that name. Errors: those of `NodePods.find`. */
export async function describePod(
  { running, find, sandboxes }: DescribedPods,
  namespace: string | undefined,
  name: string,
  signal: AbortSignal,
): Promise<PodDescription> {
  const foreign = sandboxes
    .list()
    .findLast(({ spec }) => spec.name === name && (namespace === undefined || spec.namespace === namespace));
  if (foreign === undefined || running.has(foreign.spec.namespace, name)) {
    const found = find(namespace, name);
    if (found.kind === 'ended') return describeEnded(found);
    if (found.kind === 'foreign') throw new Error('a sandbox of another program is found above');
    const { pod } = found;
    const { reason, phase, createdAt, addresses, ...names } = summaryOf(pod);
    const figures = await figuresOf(pod.sandbox, signal);
    return {
      ...{ namespace: names.namespace, name: names.name, madeBy: 'podvm', phase, createdAt, addresses },
      ...(reason === undefined ? {} : { reason }),
      ...(await machineOf(pod.sandbox, sandboxes, figures)),
      containers: pod.status.containers.map((container) =>
        describe(containerOf(container, pod), pod.sandbox?.container(container.name), figures.stats),
      ),
      events: pod.events.map(eventOf),
    };
  }
  const { spec, status } = foreign;
  const figures = await figuresOf(foreign, signal);
  return {
    namespace: printable(spec.namespace),
    name: printable(spec.name),
    madeBy: ownerOf(spec),
    phase: status.state,
    createdAt: status.createdAt.toISOString(),
    addresses: [...status.addresses],
    ...(await machineOf(foreign, sandboxes, figures)),
    containers: foreign.containers.map((container) => describe(summaryOfForeign(container), container, figures.stats)),
    events: [],
  };
}

/** Describes a pod whose machine is gone. */
function describeEnded({ details, outcome }: EndedPod): PodDescription {
  const { namespace, name, phase, createdAt, addresses, containers, events, sandbox } = details;
  const words = [outcome.reason, outcome.message].filter((word) => word !== undefined).map((word) => printable(word));
  return {
    ...{ namespace, name, madeBy: 'podvm', phase, createdAt, addresses },
    reason: words.join(': '),
    containers: containers.map((container) => ({
      ...describe(container, undefined, undefined),
      mounts: (sandbox?.mounts ?? []).filter((mount) => mount.container === container.name),
    })),
    events,
    console: [],
  };
}

interface Figures {
  readonly stats?: SandboxStats;
  readonly host?: HostFigures;
  /** Reason why some figures are missing. */
  readonly unmeasured?: string;
}

/** Asks guest and host within the same time. Each answer is shown even if the other fails. */
async function figuresOf(sandbox: Sandbox | undefined, signal: AbortSignal): Promise<Figures> {
  if (sandbox?.status.state !== 'ready') return {};
  using deadline = openDeadline(answerMs, signal);
  const [stats, host] = await Promise.allSettled([
    sandbox.stats(deadline.signal),
    sandbox.hostFigures(deadline.signal),
  ]);
  const failure = [stats, host].find(({ status }) => status === 'rejected');
  return {
    ...(stats.status === 'fulfilled' ? { stats: stats.value } : {}),
    ...(host.status === 'fulfilled' ? { host: host.value } : {}),
    ...(failure?.status === 'rejected' ? { unmeasured: printable(messageOf(failure.reason)) } : {}),
  };
}

async function machineOf(
  sandbox: Sandbox | undefined,
  { counts }: Sandboxes,
  { stats, host, unmeasured }: Figures,
): Promise<Pick<PodDescription, 'machine' | 'console'>> {
  if (sandbox === undefined) return { console: [] };
  const { status, warnings, resources } = sandbox;
  const { accelerator, vmmPid, failure, parts } = status;
  const jail = vmmPid === undefined ? undefined : await readConfinement(vmmPid).catch(() => undefined);
  const timeline = status.phases.map(({ name, ...times }) => {
    const median = counts.medians.get(name);
    const step = { name: printable(name), ...times };
    if (median === undefined || median.starts < minStarts) return { ...step, isSlow: false };
    const isSlow = times.ms > 2 * median.ms && times.ms > median.ms + slowMs;
    return { ...step, medianMs: median.ms, isSlow };
  });
  const machine: Machine = {
    id: sandbox.id,
    state: status.state,
    ...(accelerator === undefined ? {} : { accelerator }),
    ...(vmmPid === undefined ? {} : { pid: vmmPid }),
    ...(failure === undefined ? {} : { failure: printable(failure, maxFailureChars) }),
    parts: { qemu: parts.qemu, kernel: parts.kernel, crun: parts.crun, agent: parts.agent },
    timeline,
    limits: limitsOf({ ...resources, ...requestOf(sandbox) }),
    ...(stats === undefined ? {} : { use: useOf(stats) }),
    ...(host === undefined ? {} : { cost: costOf(host) }),
    ...(unmeasured === undefined ? {} : { unmeasured }),
    warnings: warnings.map((warning) => printable(warning)),
    ...(jail === undefined ? {} : { jailWeaknesses: [...weaknesses(jail)] }),
    volumes: status.volumes.map(({ name, mode }) => ({ name: printable(name), mode })),
  };
  const tail = await sandbox.consoleTail(consoleLines).catch(() => []);
  return { machine, console: tail.map((line) => printable(line)) };
}

/** Room for a reason with eight lines of a console. */
const maxFailureChars = 4000;

const useOf = ({ memoryBytes, cpuUsec, pids }: Pick<SandboxStats, 'memoryBytes' | 'cpuUsec' | 'pids'>) => ({
  memoryBytes,
  cpuSeconds: cpuUsec / 1e6,
  threads: pids,
});

const costOf = ({ guestMemoryBytes, vmm, vcpus }: HostFigures) => ({
  guestMemoryBytes,
  privateBytes: vmm.privateBytes,
  sharedBytes: vmm.sharedBytes,
  cpuSeconds: vmm.cpuSeconds,
  waitSeconds: vcpus.waitSeconds,
});

function requestOf(sandbox: Sandbox): Pick<Resources, 'memoryRequestBytes'> {
  const memoryRequestBytes = memoryRequestOf(sandbox);
  return memoryRequestBytes === undefined ? {} : { memoryRequestBytes };
}

const limitsOf = (resources: Resources): DescribedLimits => {
  const { memoryLimitBytes, memoryRequestBytes, cpuLimitMillis, cpuRequestMillis } = resources;
  return {
    ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }),
    ...(memoryRequestBytes === undefined ? {} : { memoryRequestBytes }),
    ...(cpuLimitMillis === undefined ? {} : { cpuLimitMillis }),
    ...(cpuRequestMillis === undefined ? {} : { cpuRequestMillis }),
  };
};

type Summary = Pick<ContainerSummary, 'name' | 'image' | 'state' | 'reason' | 'message' | 'exitCode' | 'startedAt'> & {
  readonly restartCount?: number;
};

function describe(summary: Summary, live: Container | undefined, stats: SandboxStats | undefined): DescribedContainer {
  const { name, image, state, reason, message, exitCode, startedAt, restartCount } = summary;
  const id = live?.status.id;
  const its = stats?.containers.find((each) => each.id === id);
  return {
    name: printable(name),
    image: printable(image),
    state,
    ...(reason === undefined ? {} : { reason }),
    ...(message === undefined ? {} : { message }),
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(restartCount === undefined ? {} : { restartCount }),
    ...(startedAt === undefined ? {} : { startedAt }),
    limits: limitsOf(live?.resources ?? {}),
    ...(its === undefined ? {} : { use: { ...useOf(its), oomKills: its.oomKills } }),
    mounts: (live?.status.mounts ?? []).map(({ mountPath, mode }) => ({ mountPath: printable(mountPath), mode })),
    ...(live === undefined ? {} : { logPath: printable(live.status.logPath) }),
  };
}

function summaryOfForeign({ status }: Container): Summary {
  const { name, image, state, startedAt, exit, attempt } = status;
  const words = [exit?.why, exit?.message].filter((word) => word !== undefined).map((word) => printable(word));
  return {
    name,
    image,
    state,
    restartCount: attempt,
    ...(startedAt === undefined ? {} : { startedAt: startedAt.toISOString() }),
    ...(exit === undefined ? {} : { reason: exit.reason, exitCode: exit.exitCode }),
    ...(words.length === 0 ? {} : { message: words.join('; ') }),
  };
}
