import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { within } from '#host/wait.ts';
import type { Log } from '#host/log/log.ts';
import { stateOf, type ContainerBefore, type ContainerHome, type ContainerMade } from './container-home.ts';
import { containerRecordOf, type KeptSpec } from './container-record.ts';
import { cellsOf, startExec } from './guest-exec.ts';
import type { ExitedEvent } from '#wire/messages.ts';
import type { HeldSource } from '../volume/host-mode.ts';
import { checkCommand } from './process-size.ts';
import { capResources, type Capped, cgroupResourcesOf, checkResources, mostOfNode, withChange } from '../resources.ts';
import { createMoves, type Moves } from '../state/moves.ts';
import { startErrorCode, startErrorFix } from './start-error.ts';
import { TerminationMessage } from './termination-message.ts';
import {
  containerMoves,
  type Container,
  type ContainerExit,
  type ContainerState,
  type ContainerStatus,
  type Exec,
  type ExecSpec,
  type OutputChunk,
  type LimitChange,
  type Resources,
} from '../sandbox.ts';

/** One container. Its state changes only in the sandbox's inbox. */
export class GuestContainer implements Container {
  readonly id: string;
  readonly exited: Promise<ContainerExit>;
  isRemoved = false;
  #spec: KeptSpec;
  readonly #home: ContainerHome;
  readonly #log: Log;
  readonly #moves: Moves<ContainerState>;
  readonly #logPath: string;
  readonly #createdAt: Date;
  readonly #execExits = new Map<string, (exitCode: number) => void>();
  readonly #settleExit: (exit: ContainerExit) => void;
  #made: ContainerMade | undefined;
  #startedAt: Date | undefined;
  #exit: ContainerExit | undefined;
  #starting: Promise<void> | undefined;
  #nextExec: number;
  #saving: Promise<void> = Promise.resolve();
  #hasGuestSaidExit = false;
  /** Reason for the loss of a source that it mounts. */
  #lostWhy: string | undefined;
  readonly #message: TerminationMessage;

  constructor(id: string, spec: KeptSpec, logPath: string, home: ContainerHome, before?: ContainerBefore) {
    this.id = id;
    this.#spec = spec;
    this.#home = home;
    this.#logPath = logPath;
    this.#createdAt = before?.createdAt ?? home.now();
    this.#made = before?.made;
    this.#startedAt = before?.startedAt;
    this.#nextExec = before?.nextExec ?? 0;
    this.#log = home.log.with({ container: spec.name, attempt: spec.attempt });
    this.#message = new TerminationMessage(id, spec.terminationMessagePath, home, this.#log);
    this.#moves = createMoves(`container ${spec.name}`, containerMoves, stateOf(before), (state, why) =>
      this.#log.debug('container moved', { state, why }),
    );
    const { promise, resolve } = Promise.withResolvers<ContainerExit>();
    this.exited = promise;
    this.#settleExit = resolve;
    this.#exit = before?.exit;
    if (before?.exit !== undefined) resolve(before.exit);
    else before?.made.mounts.onLost((why) => this.#endFor(why));
  }

  get spec(): KeptSpec {
    return this.#spec;
  }

  get status(): ContainerStatus {
    return {
      id: this.id,
      name: this.spec.name,
      attempt: this.spec.attempt,
      state: this.#moves.state,
      image: this.spec.image,
      imageId: this.#made?.imageId ?? '',
      createdAt: this.#createdAt,
      ...(this.#startedAt === undefined ? {} : { startedAt: this.#startedAt }),
      ...(this.#made?.user === undefined ? {} : { user: this.#made.user }),
      mounts: this.#made?.mounts.status ?? [],
      ...(this.#exit === undefined ? {} : { exit: this.#exit }),
      logPath: this.#logPath,
    };
  }

  /** Sources of its mounts that only its machine has. */
  get sources(): readonly HeldSource[] {
    return this.#made?.mounts.sources ?? [];
  }

  // Called by the sandbox, inside the inbox.

  /** Records that it exists in the guest. */
  becomeCreated(made: ContainerMade): void {
    this.#made = made;
    if (this.#moves.state === 'creating') this.#moves.moveTo('created', 'the guest made it');
    made.mounts.onLost((why) => this.#endFor(why));
    this.#save();
  }

  /** Records that it could not start: it exists only as a report of the reason. */
  becomeUnstartable(made: ContainerMade, exitCode: number, why: string): void {
    this.#made = made;
    this.#end({ exitCode, reason: 'StartError', why, finishedAt: this.#home.now() });
  }

  /** Records that the machine is gone or ending. */
  becomeLost(why: string): void {
    for (const settle of this.#execExits.values()) settle(killedExitCode);
    const message = this.#message.told;
    this.#end({
      exitCode: killedExitCode,
      reason: 'SandboxFailed',
      why,
      ...(message === undefined ? {} : { message }),
      finishedAt: this.#home.now(),
    });
  }

  onTerminationMessage(data: string): void {
    this.#message.tell(data);
  }

  onGuestExit(event: ExitedEvent): void {
    if (event.execId !== undefined) {
      this.#execExits.get(event.execId)?.(event.exitCode);
      this.#execExits.delete(event.execId);
      return;
    }
    if (this.#exit !== undefined || this.#hasGuestSaidExit) return;
    this.#hasGuestSaidExit = true;
    this.#message
      .read()
      .then((message) =>
        this.#home.inbox.tell(() =>
          this.#end({
            exitCode: event.exitCode,
            ...(event.signal === undefined ? {} : { signal: event.signal }),
            reason: event.oomKilled ? 'OOMKilled' : event.exitCode === 0 ? 'Completed' : 'Error',
            ...(this.#lostWhy === undefined ? {} : { why: this.#lostWhy }),
            ...(message === undefined ? {} : { message }),
            finishedAt: this.#plausible(event.finishedAtMs, this.#startedAt),
          }),
        ),
      )
      .catch((error: unknown) => this.#log.error('exit of a container not told', error));
  }

  /** Sets the reason of its exit, if it has not exited yet. */
  willEndFor(why: string): void {
    this.#lostWhy = why;
  }

  /**
   * Kills it when a source that it mounts is lost: all access would fail from then on, while the next attempt gets a
   * new one.
   */
  #endFor(why: string): void {
    if (this.#exit !== undefined) return;
    this.#lostWhy = why;
    this.#log.warn('container is killed', { why });
    this.#killAll().catch((error: unknown) => this.#log.error('container not killed', error));
  }

  /** Limits a time from the guest to between `first` and now. */
  #plausible(guestMs: number, first: Date = this.#createdAt): Date {
    const { now, hostMsOf } = this.#home;
    return new Date(Math.max(first.getTime(), Math.min(now().getTime(), hostMsOf(guestMs))));
  }

  #end(exit: ContainerExit): void {
    if (this.#exit !== undefined) return; // the first exit counts: a machine dies after its containers
    this.#exit = { ...exit, finishedAt: laterOf(this.#startedAt ?? this.#createdAt, exit.finishedAt) };
    this.#moves.moveTo('exited', exit.reason);
    this.#log.info('container exited', { code: exit.exitCode, reason: exit.reason });
    this.#settleExit(this.#exit);
    this.#save();
  }

  // Called by its user.

  /** A second call waits for the first. Errors: `failedPrecondition` unless it is `created`, with the reason. */
  async start(signal: AbortSignal): Promise<void> {
    this.#starting ??= this.#home.inbox.ask(() => this.#assertIs(['created'], 'start')).then(() => this.#start(signal));
    await this.#starting;
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { connected, guest, inbox, isLeft, starts } = this.#home;
    try {
      const { startedAtMs } = await starts.during(async () => {
        await untilAborted(connected, signal);
        if (this.#exit !== undefined) throw this.#endedBeforeStart();
        return await guest.call('startContainer', { id: this.id }, signal);
      });
      await inbox.ask(() => {
        const startedAt = this.#plausible(startedAtMs);
        // A container that ended at once may have reported it before its start was answered.
        this.#startedAt = this.#exit === undefined ? startedAt : earlierOf(startedAt, this.#exit.finishedAt);
        if (this.#moves.state === 'created') this.#moves.moveTo('running', 'started');
        this.#save();
      });
      this.#log.info('container started');
    } catch (thrown) {
      if (isLeft()) throw thrown; // no failure of the container: the next process starts it, or finds it started
      const isOver = this.#exit !== undefined && !signal.aborted && kindOf(thrown) === 'cancelled';
      const error = isOver ? this.#endedBeforeStart(thrown) : thrown;
      const why = error instanceof Error ? error.message : messageOf(error); // only the agent's message
      // One whose end is known was removed already, or its machine is gone.
      if (this.#exit === undefined && unansweredKinds.includes(kindOf(error))) await this.#endUnanswered();
      await inbox.ask(() =>
        this.#end({ exitCode: startErrorCode(why), reason: 'StartError', why, finishedAt: this.#home.now() }),
      );
      throw error;
    }
  }

  /** Error of a start that a stop of the container or its sandbox has ended. */
  #endedBeforeStart(cause?: unknown): PodvmError {
    const { why = 'it has ended' } = this.#exit ?? {};
    return new PodvmError('cancelled', `Cannot start container ${this.spec.name}: ${why}`, { cause });
  }

  /** Removes a container that the guest may have started although the call failed, so that it does not run unnoticed. */
  async #endUnanswered(): Promise<void> {
    const deadline = AbortSignal.timeout(this.#home.limits.killTimeoutMs);
    await this.#home.guest.call('removeContainer', { id: this.id }, deadline).catch((error: unknown) => {
      this.#log.error('container with an unanswered start not removed', error);
    });
  }

  async kill(signalNumber: number, signal: AbortSignal): Promise<void> {
    if (this.#exit !== undefined) return;
    await this.#home.guest.call('signalContainer', { id: this.id, signal: signalNumber }, signal);
  }

  /** A guest that does not answer is ended with its machine and all its containers (`link/heartbeat.ts`). */
  async stop(graceMs: number, signal: AbortSignal): Promise<ContainerExit> {
    const { limits } = this.#home;
    if (this.#exit !== undefined) return this.#exit;
    if (graceMs > 0 && this.#moves.state === 'running') {
      const asked = this.kill(this.#made?.stopSignal ?? constants.signals.SIGTERM, signal).then(
        () => true,
        (error: unknown) => this.#log.debug('stop signal not sent', { why: messageOf(error) }), // SIGKILL is next
      );
      const exit = (await within(asked, { ms: graceMs, signal })) && (await this.#exitWithin(graceMs, signal));
      if (exit) {
        await this.#made?.mounts.endStopped(); // the next attempt would wait for it
        return exit;
      }
    }
    try {
      await this.#killAll();
    } catch (error) {
      const lost = await this.#exitWithin(2 * limits.lastWordsMs);
      if (lost !== undefined) return lost;
      throw error;
    }
    await this.#made?.mounts.endStopped();
    const exit = await this.#exitWithin(limits.killTimeoutMs);
    if (exit !== undefined) return exit;
    throw new PodvmError(
      'unavailable',
      `Cannot stop container ${this.spec.name}: it has not ended ${limits.killTimeoutMs} ms after SIGKILL`,
      { fix: 'Stop the pod, which ends its machine.' },
    );
  }

  /** A container that was never started has no process to kill: it is removed instead. */
  async #killAll(): Promise<void> {
    const { guest, inbox, limits, now } = this.#home;
    using deadline = openDeadline(limits.killAnswerMs);
    const { signal } = deadline;
    if (this.#moves.state === 'running') {
      await guest.call('signalContainer', { id: this.id, signal: constants.signals.SIGKILL, all: true }, signal);
      return;
    }
    await guest.call('removeContainer', { id: this.id }, signal);
    await inbox.ask(() =>
      this.#end({
        exitCode: killedExitCode,
        reason: 'Error',
        why: this.#lostWhy ?? 'stopped before it started',
        finishedAt: now(),
      }),
    );
  }

  /** An abort of `signal` ends the wait early, as if the time were over: SIGKILL follows. */
  async #exitWithin(ms: number, signal?: AbortSignal): Promise<ContainerExit | undefined> {
    const exit = await within(this.exited, { ms, ...(signal === undefined ? {} : { signal }) });
    return exit ?? this.#exit;
  }

  async exec(exec: ExecSpec, signal: AbortSignal): Promise<Exec> {
    await this.#home.inbox.ask(() => this.#assertIs(['running'], 'run a command in'));
    checkCommand(`a command in container ${this.spec.name}`, exec.command, this.#made?.envBytes);
    const execId = `exec-${this.#nextExec}`;
    this.#nextExec += 1;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.#execExits.set(execId, resolve);
    try {
      return await startExec(
        { guest: this.#home.guest, containerId: this.id, execId, exec, exitCode: promise },
        signal,
      );
    } catch (error) {
      this.#execExits.delete(execId);
      throw error;
    }
  }

  get stdin(): Writable | undefined {
    return this.#made?.stdin;
  }

  async resize(columns: number, rows: number, signal: AbortSignal): Promise<void> {
    if (!this.spec.tty || !['created', 'running'].includes(this.#moves.state)) return;
    await this.#home.guest.call('resize', { containerId: this.id, ...cellsOf({ columns, rows }) }, signal);
  }

  get warnings(): readonly string[] {
    return this.#capped(this.spec.resources).warnings;
  }

  async update(change: LimitChange, signal: AbortSignal): Promise<readonly string[]> {
    await this.#home.inbox.ask(() => this.#assertIs(['created', 'running'], 'change the limits of'));
    checkResources(`container ${this.spec.name}`, withChange({}, change));
    const { resources: capped, warnings } = this.#capped(change);
    await this.#home.guest.call('updateContainer', { id: this.id, resources: cgroupResourcesOf(capped) }, signal);
    this.#spec = { ...this.#spec, resources: withChange(this.#spec.resources, change) };
    this.#save();
    return warnings;
  }

  #capped<R extends LimitChange>(resources: R): Capped<R> {
    return capResources(`container ${this.spec.name}`, resources, mostOfNode(this.#home.limits.size));
  }

  /** Its limits for the guest. */
  get resources(): Resources {
    return this.#capped(this.spec.resources).resources;
  }

  async reopenLog(): Promise<void> {
    await this.#home.inbox.ask(() => this.#assertIs(['created', 'running'], 'reopen the log of'));
    await this.#made?.reopenLog();
  }

  follow(onChunk: (chunk: OutputChunk) => Promise<void>): { readonly ended: Promise<void>; stop(): void } {
    return this.#made?.output.follow(onChunk) ?? { ended: Promise.resolve(), stop: () => {} };
  }

  /** Whether it exists, or existed, in the guest. */
  get isMade(): boolean {
    return this.#made !== undefined;
  }

  /** Settles when all output has reached the log and the followers. */
  get drained(): Promise<void> {
    return this.#made?.output.ended ?? Promise.resolve();
  }

  async remove(signal: AbortSignal): Promise<void> {
    if (this.isRemoved) return;
    await this.#home.inbox.ask(() => this.#assertIs(['exited'], 'remove'));
    await within(this.drained, { ms: this.#home.limits.drainTimeoutMs });
    await this.#home.guest.call('removeContainer', { id: this.id }, signal);
    await this.#made?.mounts[Symbol.asyncDispose]();
    this.isRemoved = true;
    await this.saved;
    await this.#home.records?.remove(this.id);
  }

  /** Settles when its record is written. */
  get saved(): Promise<void> {
    return this.#saving;
  }

  #save(): void {
    const { records } = this.#home;
    if (records === undefined || this.#made === undefined || this.isRemoved) return;
    const { status, spec } = this;
    const record = containerRecordOf({ ...this.#made, ...status, spec, sources: this.#made.mounts.sources });
    this.#saving = this.#saving
      .then(() => records.save(record))
      .catch((error: unknown) => this.#log.error('container not recorded', error)); // the guest still knows most of it
  }

  #assertIs(states: readonly ContainerState[], verb: string): void {
    if (states.includes(this.#moves.state)) return;
    const { reason, why: said = '' } = this.#exit ?? {};
    const isStartError = reason === 'StartError';
    const lost = reason === 'SandboxFailed' ? ` (${said})` : '';
    const why = isStartError ? `: ${said}` : `: it is ${this.#moves.state}${lost}`;
    const fix = isStartError ? startErrorFix(this.#exit?.exitCode) : undefined;
    throw new PodvmError('failedPrecondition', `Cannot ${verb} container ${this.spec.name}${why}`, {
      ...(fix === undefined ? {} : { fix }),
    });
  }
}

const laterOf = (a: Date, b: Date): Date => (a.getTime() >= b.getTime() ? a : b);
const earlierOf = (a: Date, b: Date): Date => (a.getTime() <= b.getTime() ? a : b);

/** 128 + SIGKILL: the code of a process that lost its machine. */
const killedExitCode = 137;

/** Errors of a call that ended without an answer. */
const unansweredKinds: readonly string[] = ['cancelled', 'timeout'];
