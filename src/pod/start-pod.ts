import { randomUUID } from 'node:crypto';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { pastAttempt, resumeAttempt, startAttempt, type Attempt, type AttemptSite } from './attempt.ts';
import { decide, finishOf, type Action } from './decide.ts';
import type { PodFacts } from './spec/downward.ts';
import { createDebugger, type DebugWish, removeDebuggers } from './debug-container.ts';
import { createEvents } from './events.ts';
import { createOutputs } from './outputs.ts';
import { applyEvent, initialState, planOf, type PodState, type StateEvent } from './pod-state.ts';
import {
  type ContainerSize,
  noMachine,
  type PodConfig,
  type PodFinish,
  type PodParts,
  type PodStatus,
  type RunningPod,
} from './pods.ts';
import { containerOf, isUnderWay, recordedMemory, resumedState, type PodBefore } from './pod-memory.ts';
import { pausePod } from './pause-pod.ts';
import type { PodContainer } from './schema/container.ts';
import type { Pod } from './schema/objects.ts';
import { readLocalProfiles, type LocalProfiles } from './spec/security.ts';
import { changedVolumes } from './changed-volumes.ts';
import { resizeInPlace, sizeText, withSize } from './resize.ts';
import { requireClaims } from './spec/claims.ts';
import { ensureHostPaths } from './spec/host-paths.ts';
import { containerSpecOf, sandboxSpecOf } from './spec/specs.ts';
import { statusOf } from './status.ts';

/**
 * Runs a pod: makes its sandbox, then executes the actions of `decide` until nothing is left to run. An abort of
 * `signal` kills it. Failures appear in `finished`, status and events; this function never throws.
 */
export function startPod(pod: Pod, config: PodConfig, parts: PodParts, signal: AbortSignal): RunningPod {
  return new PodDriver(pod, config, parts, { signal });
}

/** Continues a kept pod of an earlier process. */
export function resumePod(pod: Pod, config: PodConfig, parts: PodParts, before: PodBefore): RunningPod {
  return new PodDriver(pod, config, parts, { before });
}

interface Beginning {
  readonly signal?: AbortSignal;
  readonly before?: PodBefore;
}

/** Owns a pod's state: `#tell` receives all events, and each is followed by a decision. */
class PodDriver implements RunningPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly createdAt: Date;
  readonly finished: Promise<PodFinish>;
  #pod: Pod;
  #config: PodConfig;
  /** The last change of its ConfigMaps and Secrets, or of its limits. */
  #changing: Promise<unknown> = Promise.resolve();
  readonly #parts: PodParts;
  readonly #events;
  readonly #outputs;
  readonly #attempts = new Map<string, Attempt>();
  readonly #changeListeners = new Set<(status: PodStatus) => void>();
  /** Aborts the making of the sandbox. */
  readonly #making = new AbortController();
  readonly #settle: (finish: PodFinish) => void;
  #state: PodState;
  #sandbox: Sandbox | undefined;
  #profiles: LocalProfiles = new Map();
  #sandboxMade: Promise<void>;
  #isDeciding = false;
  #isSandboxLost = false;
  #isFinishing = false;
  #isFinished = false;
  #cancelWake = () => {};
  #removing: Promise<void> | undefined;
  #hasLeft = false;
  /** Settles when the newest state is recorded for the next process. */
  #saved: Promise<void> = Promise.resolve();

  constructor(pod: Pod, config: PodConfig, parts: PodParts, { signal, before }: Beginning) {
    this.uid = before?.memory.uid ?? pod.metadata.uid ?? randomUUID();
    this.#pod = { ...pod, metadata: { ...pod.metadata, uid: this.uid } };
    this.namespace = pod.metadata.namespace;
    this.name = pod.metadata.name;
    this.createdAt = new Date(before?.memory.createdAt ?? parts.clock.now());
    this.#config = config;
    this.#parts = { ...parts, log: parts.log.with({ pod: `${this.namespace}/${this.name}` }) };
    this.#events = createEvents(parts.clock, before?.memory.events);
    this.#outputs = createOutputs(this.#parts.log);
    const nowMs = parts.clock.monotonicMs();
    const initial = initialState(planOf(pod, config.awaited), parts.clock.now(), nowMs);
    this.#state = before === undefined ? initial : resumedState(initial, before, nowMs);
    const { promise, resolve } = Promise.withResolvers<PodFinish>();
    this.finished = promise;
    this.#settle = resolve;
    this.#sandbox = before?.sandbox;
    this.#save();
    // Starts after this turn, so that the caller can subscribe first.
    this.#sandboxMade = Promise.resolve().then(() =>
      before === undefined ? this.#makeSandbox() : this.#resume(before.sandbox),
    );
    if (signal !== undefined) this.#endWith(signal);
    if (before === undefined) this.#decideSoon();
  }

  #endWith(signal: AbortSignal): void {
    const abort = () => void this.kill();
    signal.addEventListener('abort', abort, { once: true });
    void this.finished.then(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  }

  get pod(): Pod {
    return this.#pod;
  }

  get #containers(): readonly PodContainer[] {
    const { initContainers, containers } = this.#pod.spec;
    return [...initContainers, ...containers];
  }

  get status(): PodStatus {
    return statusOf(this.#state, {
      isFinished: this.#isFinished,
      podIPs: this.#facts().podIPs,
      imageOf: (name) => this.#containers.find((it) => it.name === name)?.image ?? '',
      imageIdOf: (name) => this.#attempts.get(name)?.container?.status.imageId ?? '',
    });
  }

  get events() {
    return this.#events.all;
  }

  get sandbox(): Sandbox | undefined {
    return this.#sandbox;
  }

  onEvent(listener: Parameters<RunningPod['onEvent']>[0]) {
    return this.#events.listen(listener);
  }

  onOutput(listener: Parameters<RunningPod['onOutput']>[0]) {
    return this.#outputs.listen(listener);
  }

  onChange(listener: (status: PodStatus) => void) {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  terminate(graceSeconds = this.pod.spec.terminationGracePeriodSeconds): Promise<PodFinish> {
    this.#end('Terminated', this.#parts.clock.monotonicMs() + graceSeconds * 1000);
    return this.finished;
  }

  kill(): Promise<PodFinish> {
    this.#end('Killed', this.#parts.clock.monotonicMs());
    // A blocked listener must not delay the sandbox's end.
    this.#outputs.giveUp();
    return this.finished;
  }

  async remove(): Promise<void> {
    this.#removing ??= this.kill()
      .then(() => this.#sandbox?.remove())
      .finally(() => (this.#removing = undefined)); // a failed removal can be retried
    await this.#removing;
  }

  async changeData(data: Pick<PodConfig, 'configMaps' | 'secrets'>, signal: AbortSignal): Promise<void> {
    await this.#inTurn(() => this.#changeData(data, signal));
  }

  async resize(size: ContainerSize, signal: AbortSignal): Promise<readonly string[]> {
    return await this.#inTurn(() => this.#resize(size, signal));
  }

  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#changing.catch(() => undefined).then(change);
    this.#changing = turn;
    return await turn;
  }

  async #resize(size: ContainerSize, signal: AbortSignal): Promise<readonly string[]> {
    await this.#sandboxMade;
    const next = withSize(this.#pod, size);
    if (this.#sandbox === undefined || this.#isFinishing)
      throw new PodvmError('failedPrecondition', `Cannot resize ${this.name}: it has no machine`, {
        fix: 'Try again when `podvm ps` shows the pod as Running.',
      });
    const warnings = await resizeInPlace(this.#sandbox, next, size, signal);
    this.#pod = next;
    const container = this.#containers.find(({ name }) => name === size.container);
    if (container !== undefined) this.#events.normal('Resized', `Limits: ${sizeText(container)}`, container.name);
    for (const warning of warnings) this.#events.warn('LimitCut', warning, size.container);
    this.#save();
    return warnings;
  }

  async #changeData(data: Pick<PodConfig, 'configMaps' | 'secrets'>, signal: AbortSignal): Promise<void> {
    await this.#sandboxMade;
    const config = { ...this.#config, ...data }; // lost Secrets must be given, also those that a pod may lack
    const around = { facts: this.#facts(), profiles: this.#profiles };
    const changed = changedVolumes(this.pod, this.#config, config, around);
    for (const { name, files } of changed) {
      await this.#sandbox?.updateVolume(name, files, signal).catch((error: unknown) => {
        if (!this.#ends) throw error; // a pod that ends has no files any more
      });
    }
    this.#config = { ...config, hasLostSecrets: false }; // after the files, so that the next try makes a change that failed
  }

  async setPaused(isPaused: boolean): Promise<void> {
    const isEnding = this.#state.ending !== undefined;
    const { name } = this;
    if (await pausePod(isPaused, { name, sandbox: this.#sandbox, isEnding, events: this.#events })) this.#changed();
    if (isPaused && this.#state.ending !== undefined) await this.#sandbox?.setPaused(false); // it was ended meanwhile
  }

  async debug(wish: DebugWish, signal: AbortSignal): Promise<Container> {
    const specOf = (container: PodContainer) => this.#specOf(container, 0);
    return await createDebugger(wish, { pod: this.pod, sandbox: this.#sandbox, specOf }, signal);
  }

  get #ends(): boolean {
    return this.#isFinished || this.#isFinishing || this.#sandbox?.status.state !== 'ready';
  }

  leave(): boolean {
    if (this.#config.kept === undefined || this.#sandbox === undefined || this.#isFinished) return false;
    this.#hasLeft = true;
    this.#cancelWake();
    for (const attempt of this.#attempts.values()) attempt.leave();
    this.#outputs.giveUp();
    return true;
  }

  #end(reason: string, killAtMs: number): void {
    if (this.#isFinished) return;
    this.#making.abort();
    this.#tell({ kind: 'end', ending: { reason, killAtMs } });
  }

  #facts(): PodFacts {
    const { nodeName, hostIP } = this.#config;
    const podIPs = (this.#sandbox?.status.addresses ?? []).map((address) => address.split('/')[0] ?? address);
    return { uid: this.uid, nodeName, hostIP, podIPs };
  }

  async #makeSandbox(): Promise<void> {
    const { log, sandboxes } = this.#parts;
    try {
      if (this.#making.signal.aborted) return;
      const spec = sandboxSpecOf(this.pod, this.#config, this.#facts());
      this.#profiles = await readLocalProfiles(this.pod.spec, this.#config.seccompDirectory);
      await requireClaims(this.pod, this.#config);
      // Detects a missing ConfigMap or Secret before a machine is made.
      for (const container of this.#containers) this.#specOf(container, 0, assumedIPs);
      const sandbox = await sandboxes.run(spec, this.#making.signal);
      this.#sandbox = sandbox;
      for (const warning of sandbox.warnings) this.#events.warn('LimitCut', warning);
      this.#watch(sandbox);
      this.#tell({ kind: 'sandboxReady' });
    } catch (error) {
      if (this.#making.signal.aborted) return; // the aborting code has reported the reason
      const message = messageOf(error);
      log.info('cannot make the sandbox', { err: message }); // the user is informed by the event
      this.#events.failed(noMachine, error);
      const ending = {
        reason: noMachine,
        message,
        exitCode: 125,
        killAtMs: this.#parts.clock.monotonicMs(),
      };
      this.#tell({ kind: 'end', ending });
    }
  }

  /** Continues the containers of an earlier process. */
  async #resume(sandbox: Sandbox): Promise<void> {
    try {
      this.#profiles = await readLocalProfiles(this.pod.spec, this.#config.seccompDirectory);
    } catch (error) {
      this.#parts.log.error('seccomp profiles not read', error); // the next start of a container that needs one fails
    }
    for (const container of this.#containers) {
      const run = this.#state.containers.find(({ plan }) => plan.name === container.name);
      const left = containerOf(sandbox, container.name);
      if (run === undefined || left === undefined) continue;
      const { isStarted, runsSinceMs: sinceMs } = run;
      const attempt = isUnderWay(run)
        ? resumeAttempt(container, { container: left, isStarted, sinceMs }, this.#siteOf(sandbox))
        : pastAttempt(left);
      this.#attempts.set(container.name, attempt);
    }
    removeDebuggers({ pod: this.pod, sandbox }, (error) => this.#parts.log.error('debugger not removed', error));
    this.#watch(sandbox);
    this.#decideSoon();
  }

  #watch(sandbox: Sandbox): void {
    sandbox.onDiskTrouble((trouble) => this.#events.warn('DiskTrouble', trouble));
    void sandbox.ended.then((status) => this.#onSandboxLost(status.failure));
  }

  /** Called by the sandbox and by every container of it; the first call counts. */
  #onSandboxLost(failure: string | undefined): void {
    if (this.#isFinishing || this.#isSandboxLost || this.#hasLeft) return;
    this.#isSandboxLost = true;
    const message = this.#sandbox?.status.failure ?? failure ?? 'the sandbox was stopped';
    this.#events.warn('SandboxFailed', message);
    const ending = { reason: 'SandboxFailed', message, exitCode: 125, killAtMs: this.#parts.clock.monotonicMs() };
    this.#tell({ kind: 'end', ending });
  }

  #tell(event: StateEvent): void {
    if (this.#isFinished || this.#hasLeft) return;
    const before = this.#state;
    this.#state = applyEvent(before, event);
    if (this.#state === before) return;
    if (event.kind === 'end' && this.#sandbox?.status.isPaused === true) {
      // Its containers are asked to end next.
      this.#sandbox.setPaused(false).catch((error: unknown) => this.#parts.log.error('pod not unpaused', error));
    }
    if (event.kind === 'exited') this.#announceBackOff(event.name);
    this.#save();
    this.#changed();
    this.#decideSoon();
  }

  #announceBackOff(name: string): void {
    const run = this.#state.containers.find(({ plan }) => plan.name === name)?.run;
    if (run?.at !== 'waiting') return;
    const seconds = Math.ceil((run.notBeforeMs - this.#parts.clock.monotonicMs()) / 1000);
    if (seconds > 0) this.#events.warn('BackOff', `Restarting container ${name} in ${seconds} s`, name);
  }

  #save(): void {
    const { uid, createdAt } = this;
    const memory = { uid, createdAt: createdAt.toISOString(), state: this.#state, events: this.#events.all };
    this.#saved = this.#config.kept?.save(recordedMemory(memory)) ?? this.#saved;
  }

  #changed(): void {
    if (this.#changeListeners.size === 0) return;
    const status = this.status;
    for (const listener of this.#changeListeners) listener(status);
  }

  /** Schedules a decision. Events of an action are handled after it, so that decisions are never nested. */
  #decideSoon(): void {
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    queueMicrotask(() => {
      this.#isDeciding = false;
      this.#decideNow();
    });
  }

  #decideNow(): void {
    if (this.#isFinishing || this.#hasLeft) return;
    this.#cancelWake();
    const { clock } = this.#parts;
    const { actions, wakeAtMs } = decide(this.#state, clock.monotonicMs());
    for (const action of actions) this.#perform(action);
    if (wakeAtMs !== undefined)
      this.#cancelWake = clock.after(wakeAtMs - clock.monotonicMs(), () => this.#decideSoon());
  }

  #perform(action: Action): void {
    switch (action.kind) {
      case 'start':
        this.#start(action.name, action.attempt);
        return;
      case 'stop':
        this.#tell({ kind: 'stopBegun', name: action.name, why: action.why, isKilled: false });
        this.#attempts.get(action.name)?.stop(action.graceMs, action.why);
        return;
      case 'kill':
        this.#tell({ kind: 'stopBegun', name: action.name, why: 'killed', isKilled: true });
        this.#attempts.get(action.name)?.kill();
        return;
      case 'abortStart':
        this.#attempts.get(action.name)?.abort();
        return;
      case 'end':
        if (action.ending.reason !== 'Completed') this.#events.warn(action.ending.reason, action.ending.message ?? '');
        this.#tell({ kind: 'end', ending: action.ending });
        return;
      case 'finish':
        this.#isFinishing = true;
        void this.#finish();
    }
  }

  #start(name: string, attempt: number): void {
    const container = this.#containers.find((it) => it.name === name);
    if (container === undefined || this.#sandbox === undefined) throw new Error(`nothing to start as ${name}`);
    const previous: Container | undefined = this.#attempts.get(name)?.container;
    this.#tell({ kind: 'startBegun', name });
    const site = this.#siteOf(this.#sandbox);
    this.#attempts.set(
      name,
      startAttempt(container, () => this.#specNow(container, attempt), previous, site),
    );
  }

  #siteOf(sandbox: Sandbox): AttemptSite {
    const { clock, log } = this.#parts;
    return {
      sandbox,
      clock,
      log,
      events: this.#events,
      outputs: this.#outputs,
      graceMs: this.#state.plan.graceMs,
      terminalSize: this.#config.terminalSize,
      hasLostLogins: this.#config.hasLostLogins === true,
      tell: (event) => this.#tell(event),
      onSandboxLost: (why) => this.#onSandboxLost(why),
    };
  }

  async #specNow(container: PodContainer, attempt: number) {
    await this.#saved; // a container that exists was recorded before it was made
    await ensureHostPaths(this.pod, container);
    return this.#specOf(container, attempt);
  }

  #specOf(container: PodContainer, attempt: number, podIPs = this.#facts().podIPs) {
    const facts = { ...this.#facts(), podIPs };
    return containerSpecOf(this.pod, container, attempt, this.#config, facts, this.#profiles);
  }

  /** Stops the sandbox after everything has ended, and finishes the pod. */
  async #finish(): Promise<void> {
    this.#cancelWake();
    await this.#sandboxMade;
    try {
      await this.#sandbox?.stop(0);
    } catch (error) {
      this.#parts.log.error('cannot stop the sandbox', error); // `remove` retries
    }
    this.#isFinished = true;
    this.#changed();
    this.#settle(finishOf(this.#state));
  }
}

/** Placeholders for the pod's addresses until they are known, so that a subPathExpr of them is not empty. */
const assumedIPs = ['0.0.0.0', '::'];
