import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { type GuestText, guestText, rawText } from '#base/guest-text.ts';
import { deadlineAfter, type Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Container, ContainerExit, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import type { CheckTarget } from './probe/check.ts';
import type { Events } from './events.ts';
import { runHook } from './probe/hook.ts';
import { createOutputTail, type Outputs } from './outputs.ts';
import type { Exit, StateEvent } from './pod-state.ts';
import type { TerminalSize } from './pods.ts';
import { runProbe, type ProbeKind, type ProbeListener } from './probe/probe.ts';
import type { PodContainer } from './schema/container.ts';
import { unpausedDeadline } from './unpaused-deadline.ts';
import type { Probe } from './schema/probe.ts';

/** Parts of the pod that an attempt uses. */
export interface AttemptSite {
  readonly sandbox: Sandbox;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly outputs: Outputs;
  /** The pod's terminationGracePeriodSeconds in `ms`. */
  readonly graceMs: number;
  readonly terminalSize: TerminalSize | undefined;
  /** The logins with which the pod was started ended with its node. */
  readonly hasLostLogins: boolean;
  tell(event: StateEvent): void;
  /** Called when the machine ended under a container. Nothing can be restarted in it. */
  onSandboxLost(why: string | undefined): void;
}

/** One run of one container, from its creation to its end. Reports everything as events. */
export interface Attempt {
  readonly container: Container | undefined;
  /** Settles when the container has ended and its output was delivered, or when it could not be made. Never rejects. */
  readonly done: Promise<void>;
  /** Runs preStop, sends SIGTERM, and SIGKILL after `graceMs`. */
  stop(graceMs: number, why: string): void;
  kill(): void;
  /** Aborts the creation. */
  abort(): void;
  /** Ends its hooks and probes; the container itself is left alone. */
  leave(): void;
}

/** A container of an earlier process, with its progress. */
export interface Resumed {
  readonly container: Container;
  /** Whether its postStart hook and its startup probe have succeeded. */
  readonly isStarted: boolean;
  /** Time of its start, from which probes count their delay. */
  readonly sinceMs: number | undefined;
}

/** Error kinds worth a retry. Others would fail again. */
const transientKinds: readonly string[] = ['unavailable', 'timeout', 'busy', 'exhausted'];
/** Error kinds of `createContainer` for an image that is missing, forbidden or broken. */
const imageKinds: readonly string[] = ['notFound', 'denied', 'corrupt'];
/** Limit of each clean-up call, in `ms`. */
const cleanupMs = 10_000;
/** Limit of a start, in `ms`, without time in which the pod is paused. A guest that does not answer is lost. */
const startMs = 120_000;
const sigkill = 9;
/** Kubelet's minimum grace after a preStop hook, in `ms`. */
const leastGraceMs = 2000;

export function startAttempt(
  container: PodContainer,
  specOf: () => Promise<ContainerSpec>,
  previous: Container | undefined,
  site: AttemptSite,
): Attempt {
  return runAttempt(container, (signal) => create(container, specOf, previous, site, signal), undefined, site);
}

/** Continues an attempt of an earlier process: starts the container if it has not started, and probes it. */
export function resumeAttempt(container: PodContainer, resumed: Resumed, site: AttemptSite): Attempt {
  return runAttempt(container, () => Promise.resolve(resumed.container), resumed, site);
}

/** An attempt of an earlier process that was over. */
export function pastAttempt(container: Container): Attempt {
  const nothing = () => {};
  return { container, done: Promise.resolve(), stop: nothing, kill: nothing, abort: nothing, leave: nothing };
}

function runAttempt(
  container: PodContainer,
  make: (signal: AbortSignal) => Promise<Container | undefined>,
  resumed: Resumed | undefined,
  site: AttemptSite,
): Attempt {
  const { name } = container;
  const making = new AbortController();
  const ending = new AbortController();
  let made: Container | undefined = resumed?.container;

  const run = async () => {
    const created = await make(making.signal);
    if (created === undefined) return;
    made = created;
    const tail = createOutputTail();
    const output = created.follow((chunk) => {
      tail.add(chunk.bytes);
      return site.outputs.deliver(name, chunk);
    });
    if (making.signal.aborted) await endUnstarted(name, created, site);
    const isRunning = !making.signal.aborted && (await begin(container, created, site, ending.signal));
    if (isRunning) {
      void created.exited.then(() => ending.abort());
      await Promise.all([created.exited, watch(container, created, resumed, site, ending.signal)]);
    }
    const exit = await created.exited;
    await output.ended; // output of a restart must follow that of this run
    if (exit.reason === 'SandboxFailed') site.onSandboxLost(exit.why);
    site.tell({
      kind: 'exited',
      name,
      exit: exitOf(container, exit, tail.text()),
      nowMs: site.clock.monotonicMs(),
    });
    if (exit.reason === 'OOMKilled') site.events.warn('OOMKilled', 'Container exceeded its memory limit', name);
  };

  const stop = async (graceMs: number, why: string) => {
    if (made === undefined) return;
    site.events.normal('Killing', `Stopping container ${name}${whyText(why)}`, name);
    const until = site.clock.monotonicMs() + graceMs;
    await runPreStop(container, made, site, graceMs, ending.signal);
    const left = Math.max(leastGraceMs, until - site.clock.monotonicMs());
    await made.stop(left, AbortSignal.timeout(left + cleanupMs));
  };
  const kill = async () => {
    if (made === undefined) return;
    await made.kill(sigkill, AbortSignal.timeout(cleanupMs));
  };
  const logged = (what: string, action: Promise<void>) => {
    // Not awaited: the pod's deadline, or the end of the sandbox, kills the container.
    action.catch((error: unknown) => site.log.error(`cannot ${what}`, error, { container: name }));
  };
  return {
    get container() {
      return made;
    },
    done: run().catch((error: unknown) => failed(name, error, site)),
    stop: (graceMs, why) => logged('stop', stop(graceMs, why)),
    kill: () => logged('kill', kill()),
    abort: () => making.abort(),
    leave: () => ending.abort(),
  };
}

function whyText(why: string): string {
  const texts: Readonly<Record<string, string>> = {
    liveness: ': its liveness probe failed, it will be restarted',
    startup: ': its startup probe failed, it will be restarted',
    postStart: ': its postStart hook failed',
  };
  return texts[why] ?? '';
}

/** Ends the container after a bug, so that the pod does not wait for it forever. */
function failed(name: string, error: unknown, site: AttemptSite): void {
  site.log.error('container attempt failed', error, { container: name });
  const finishedAtMs = site.clock.now();
  site.tell({
    kind: 'exited',
    name,
    exit: { exitCode: 125, reason: 'Error', message: guestText(messageOf(error)), finishedAtMs },
    nowMs: site.clock.monotonicMs(),
  });
}

async function create(
  container: PodContainer,
  specOf: () => Promise<ContainerSpec>,
  previous: Container | undefined,
  site: AttemptSite,
  signal: AbortSignal,
): Promise<Container | undefined> {
  const { name } = container;
  let reason = 'CreateContainerConfigError';
  try {
    const spec = await specOf();
    reason = 'CreateContainerError';
    await removePrevious(name, previous, site);
    const created = await site.sandbox.createContainer(spec, signal);
    // Warnings about the pod's total make those about its parts redundant.
    const warnings = site.sandbox.warnings.length > 0 ? [] : created.warnings;
    for (const warning of warnings) site.events.warn('LimitCut', warning, name);
    site.events.normal('Created', `Created container ${name} of ${spec.image}`, name);
    return created;
  } catch (cause) {
    const error = site.hasLostLogins && kindOf(cause) === 'denied' ? withoutLogins(cause) : cause;
    const isTransient = transientKinds.includes(kindOf(error));
    if (reason === 'CreateContainerError' && imageKinds.includes(kindOf(error))) reason = 'ErrImagePull';
    if (!signal.aborted) site.events.failed(isTransient ? 'BackOff' : 'Failed', error, name);
    site.tell({
      kind: 'createFailed',
      name,
      isTransient,
      ...(kindOf(error) === 'busy' ? { isTaken: true } : {}),
      reason,
      message: messageOf(error),
      nowMs: site.clock.monotonicMs(),
    });
    return undefined;
  }
}

const withoutLogins = (cause: unknown) =>
  new PodvmError('denied', 'Cannot use the logins with which the pod was started: they ended with its node', {
    cause,
    fix: 'Run the pod again from its file or image. Logins are never written to disk.',
  });

/** Removes the previous run's container, whose writable layer takes space. On failure it goes with the machine. */
async function removePrevious(name: string, previous: Container | undefined, site: AttemptSite): Promise<void> {
  try {
    await previous?.remove(AbortSignal.timeout(cleanupMs));
  } catch (error) {
    site.log.error('cannot remove the previous container', error, { container: name });
  }
}

/** Stops a container that never ran, so that `exited` settles. Idempotent. */
async function endUnstarted(name: string, created: Container, site: AttemptSite): Promise<void> {
  await created.stop(0, AbortSignal.timeout(cleanupMs)).catch((cause: unknown) => {
    site.log.error('cannot stop a container that did not start', cause, { container: name });
  });
}

/**
 * Starts the container; false when it could not be started, for which `exited` has the reason. A start is not aborted:
 * it takes milliseconds, and a running container can be stopped. `leaving`: the next process starts it again.
 */
async function begin(
  container: PodContainer,
  created: Container,
  site: AttemptSite,
  leaving: AbortSignal,
): Promise<boolean> {
  const { name } = container;
  const { terminalSize } = site;
  if (created.status.startedAt !== undefined) {
    announceRunning(name, created, site); // by an earlier process
    return created.status.exit === undefined;
  }
  try {
    using deadline = unpausedDeadline(site.clock, startMs, site.sandbox);
    // Before its program can ask.
    if (container.tty && terminalSize !== undefined) {
      await created.resize(terminalSize.columns, terminalSize.rows, deadline.signal);
    }
    await created.start(deadline.signal);
  } catch (error) {
    if (leaving.aborted) return false;
    site.events.failed('Failed', error, name);
    await endUnstarted(name, created, site);
    return false;
  }
  site.events.normal('Started', `Started container ${name}`, name);
  announceRunning(name, created, site);
  return true;
}

function announceRunning(name: string, created: Container, site: AttemptSite): void {
  // The container's own clock, which also dates its end. It may have ended already.
  const startedAtMs = created.status.startedAt?.getTime() ?? site.clock.now();
  site.tell({ kind: 'running', name, startedAtMs, nowMs: site.clock.monotonicMs() });
}

/** Runs the postStart hook, then probes until the container ends. */
async function watch(
  container: PodContainer,
  created: Container,
  resumed: Resumed | undefined,
  site: AttemptSite,
  signal: AbortSignal,
) {
  const { name, lifecycle, startupProbe, livenessProbe, readinessProbe } = container;
  const target = targetOf(container, created, site);
  const sinceMs = resumed?.sinceMs ?? site.clock.monotonicMs();
  const wasStarted = resumed?.isStarted === true;
  if (lifecycle.postStart !== undefined && !wasStarted) {
    try {
      await runHook(lifecycle.postStart, target, site.clock, signal);
    } catch (error) {
      if (signal.aborted) return;
      site.events.warn('FailedPostStartHook', messageOf(error), name);
      site.tell({ kind: 'stopWanted', name, wish: { why: 'postStart', graceMs: site.graceMs } });
      return;
    }
  }
  const listener = listenerOf(container, site, signal);
  const probe = async (kind: ProbeKind, settings: Probe | undefined) => {
    if (settings === undefined) return;
    await runProbe(kind, settings, target, site.clock, sinceMs, listener, signal);
  };
  if (!wasStarted) await probe('startup', startupProbe);
  if (signal.aborted) return;
  // A failed startup probe has requested a stop; a successful one has reported `started`.
  if (startupProbe === undefined && !wasStarted) site.tell({ kind: 'started', name });
  await Promise.all([probe('liveness', livenessProbe), probe('readiness', readinessProbe)]);
}

function listenerOf(container: PodContainer, site: AttemptSite, signal: AbortSignal): ProbeListener {
  const { name } = container;
  const graceOf = (kind: ProbeKind) => {
    const own = kind === 'startup' ? container.startupProbe : container.livenessProbe;
    const seconds = own?.terminationGracePeriodSeconds;
    return seconds === undefined ? site.graceMs : seconds * 1000;
  };
  return {
    failed(kind, message) {
      const title = kind[0]?.toUpperCase() + kind.slice(1);
      if (!signal.aborted) site.events.warn('Unhealthy', `${title} probe failed: ${message}`, name);
    },
    settled(kind, isSuccess) {
      if (kind === 'readiness') {
        site.tell({ kind: 'readiness', name, isReady: isSuccess });
        return 'continue';
      }
      if (!isSuccess) {
        site.tell({ kind: 'stopWanted', name, wish: { why: kind, graceMs: graceOf(kind) } });
        return 'stop';
      }
      if (kind === 'liveness') return 'continue';
      site.tell({ kind: 'started', name });
      return 'stop';
    },
  };
}

function targetOf(container: PodContainer, created: Container, site: AttemptSite): CheckTarget {
  return { sandbox: site.sandbox, container: created, ports: container.ports };
}

/** Runs the preStop hook within the grace period. A failed or slow hook does not delay the end. */
async function runPreStop(
  container: PodContainer,
  made: Container,
  site: AttemptSite,
  graceMs: number,
  ended: AbortSignal,
): Promise<void> {
  const handler = container.lifecycle.preStop;
  if (handler === undefined || graceMs <= 0) return;
  using deadline = deadlineAfter(site.clock, graceMs, ended);
  try {
    await runHook(handler, targetOf(container, made, site), site.clock, deadline.signal);
  } catch (error) {
    if (!ended.aborted) site.events.warn('FailedPreStopHook', messageOf(error), container.name);
  }
}

function exitOf(container: PodContainer, exit: ContainerExit, tail: GuestText): Exit {
  const usesLog =
    container.terminationMessagePolicy === 'FallbackToLogsOnError' &&
    exit.exitCode !== 0 &&
    exit.why === undefined &&
    exit.message === undefined;
  const said = [exit.why, exit.message && rawText(exit.message)].filter((text) => text !== undefined).join(': ');
  const message = usesLog ? rawText(tail) : said;
  return {
    exitCode: exit.exitCode,
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    reason: exit.reason,
    ...(message === '' ? {} : { message: guestText(message) }),
    finishedAtMs: exit.finishedAt.getTime(),
  };
}
