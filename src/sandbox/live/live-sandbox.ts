import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { within } from '#host/wait.ts';
import { type GuestText, printable } from '#base/guest-text.ts';
import type { Log } from '#host/log/log.ts';
import { traced } from '#host/log/tracing.ts';
import { oomScores } from '#host/process/oom-score.ts';
import { consoleTail, withConsole } from '../log/console-tail.ts';
import { createInGuest, type ContainerSite } from '../container/create-container.ts';
import { diskTroubleOf } from '../volume/disk-trouble.ts';
import type { AgentEvent } from '#wire/messages.ts';
import { dial } from './dial.ts';
import { discardAtRest } from './discard-at-rest.ts';
import { createInbox, type Inbox } from '../state/inbox.ts';
import { examine } from './examine.ts';
import type { Examination } from '../figures/examination.ts';
import {
  findMeasured,
  type HostFigures,
  type MeasuredParts,
  type MeasuredServers,
  measureHost,
} from '../figures/host-figures.ts';
import { ServedRequests } from '../figures/served-requests.ts';
import { hostTimes } from '../container/host-times.ts';
import type { LiveParts } from './live-parts.ts';
import { measureGuest, statsOf } from '../container/measure-guest.ts';
import { Pausing } from './pausing.ts';
import { createMoves, type Moves } from '../state/moves.ts';
import { pssKiB } from '../recovery/processes.ts';
import { checkPushed, pushVolume } from '../volume/push-volume.ts';
import { limitOnHost, resize } from './resize.ts';
import {
  sandboxMoves,
  type Container,
  type ContainerSpec,
  type LimitChange,
  type Resources,
  type Sandbox,
  type SandboxSpec,
  type SandboxState,
  type SandboxStatus,
  type VolumeFile,
} from '../sandbox.ts';
import { whyLinkClosed } from './why-link-closed.ts';
import { SandboxContainers } from './sandbox-containers.ts';
import { WeighedStarts } from './weighed-starts.ts';
import type { SandboxMetrics, SandboxStats } from '../figures/sandbox-stats.ts';

/** Age of dropped packets among figures that are read again and again, in `ms`. */
const droppedAgeMs = 60_000;

/** Why the sandbox ends; the first one applied decides between `stopped` and `failed`. */
type Ending = { readonly kind: 'stop' | 'failure'; readonly why: string };

/** A sandbox from `ready` to its end. It has one writer: state changes only inside the inbox. */
export class LiveSandbox implements Sandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  /** The pod's current limits. */
  #resources: Resources;
  readonly consolePath: string;
  readonly ended: Promise<SandboxStatus>;
  readonly #live: LiveParts;
  readonly #log: Log;
  readonly #pausing: Pausing;
  readonly #starts: WeighedStarts;
  readonly #discarding: Disposable;
  readonly #inbox: Inbox;
  readonly #moves: Moves<SandboxState>;
  readonly #site: ContainerSite;
  readonly #settleEnded: (status: SandboxStatus) => void;
  readonly #containers: SandboxContainers;
  /** Aborts creations in progress, and cuts the grace of containers short. */
  readonly #closing = new AbortController();
  readonly #hurry = new AbortController();
  #onDiskTrouble: (trouble: string) => void = () => {};
  #ending: Ending | 'left' | undefined;
  #failure: string | undefined;
  #outOfMemoryEvents = 0;
  #measured: MeasuredParts | undefined;
  readonly #servers: MeasuredServers;

  constructor(live: LiveParts) {
    this.id = live.id;
    this.spec = live.spec;
    this.#resources = live.resources;
    this.consolePath = live.machine.consolePath;
    this.#live = live;
    const { mounts } = live;
    this.#servers = {
      get serverPids() {
        return mounts.serverPids;
      },
      requests: new ServedRequests(live.kept?.endedRequests, (endedRequests) => {
        live.kept?.record.change({ endedRequests }).catch((error: unknown) => this.#onBug(error));
      }),
    };
    this.#log = live.surroundings.log;
    this.#pausing = new Pausing(live);
    this.#starts = new WeighedStarts(live, live.containersBefore === undefined);
    this.#discarding = discardAtRest(live);
    this.#inbox = createInbox((error) => this.#onBug(error));
    this.#moves = createMoves(`sandbox ${live.id}`, sandboxMoves, 'creating', (state, why) =>
      this.#log.info('sandbox moved', { state, why }),
    );
    const { promise, resolve } = Promise.withResolvers<SandboxStatus>();
    this.ended = promise;
    this.#settleEnded = resolve;
    this.#site = {
      inbox: this.#inbox,
      guest: live.guest,
      limits: live.limits,
      log: this.#log,
      now: () => new Date(live.surroundings.nowMs()),
      hostMsOf: hostTimes(live.surroundings),
      spec: live.spec,
      directory: live.directory,
      parts: live.parts,
      imageDisks: live.imageDisks,
      modulesDisk: live.modulesDisk,
      mounts: live.mounts,
      connected: live.connection.made,
      isLeft: () => this.#ending === 'left',
      surroundings: live.surroundings,
      starts: this.#starts,
      ...(live.kept === undefined ? {} : { records: live.kept.containers }),
    };
    this.#containers = new SandboxContainers(this.#site, live.containersBefore?.(this.#site) ?? []);
    this.#moves.moveTo('ready', 'configured');
    if (!live.connection.isMade) this.#awaitConnection(live);
    live.machine.onDiskError((error) => {
      const trouble = diskTroubleOf(error);
      this.#log.warn('disk trouble', { trouble });
      this.#onDiskTrouble(trouble);
    });
    live.guest.onEvent((event) => this.#inbox.tell(() => this.#onGuestEvent(event)));
    const onBug = (error: unknown) => this.#onBug(error);
    whyLinkClosed(live).then((why) => this.#inbox.tell(() => this.#fail(why)), onBug);
    live.machine.exited.then((exit) => this.#inbox.tell(() => this.#fail(exit.reason)), onBug);
  }

  get status(): SandboxStatus {
    const { machine, addresses, createdAt, versions } = this.#live;
    const hasEnded = this.#moves.state === 'stopped' || this.#moves.state === 'failed';
    return {
      id: this.id,
      state: this.#moves.state,
      createdAt,
      addresses,
      parts: versions,
      accelerator: machine.accelerator,
      ...(hasEnded ? {} : { vmmPid: machine.record.pid }),
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
      ...(this.#pausing.isPaused ? { isPaused: true as const } : {}),
      phases: this.#live.phases(),
      containers: this.#containers.all.map((container) => container.status),
      volumes: this.spec.volumes.map(({ name, kind }) => ({ name, mode: kind })),
    };
  }

  /** Settles when its guest has its network: containers start then. Errors: those of the agent; the sandbox then fails. */
  get connected(): Promise<void> {
    return this.#live.connection.made;
  }

  #awaitConnection({ connection, guest, kept, phases }: LiveParts): void {
    connection.made
      .then(
        () => kept?.record.change({ isConnected: true, phases: [...phases()] }),
        async (error: unknown) => {
          const isDown = (await within(guest.closed, { ms: 0 })) !== undefined;
          if (isDown) return; // `whyLinkClosed` has a reason of its own
          this.#inbox.tell(() => this.#fail(messageOf(error)));
        },
      )
      .catch((error: unknown) => this.#onBug(error));
  }

  get state(): SandboxState {
    return this.#moves.state;
  }

  get warnings(): readonly string[] {
    return this.#live.warnings;
  }

  async consoleTail(lines: number): Promise<readonly GuestText[]> {
    return await consoleTail(this.#live.machine, { lines, bytes: 100 * lines });
  }

  get resources(): Resources {
    return this.#resources;
  }

  get containers(): readonly Container[] {
    return this.#containers.all.filter(({ isRemoved }) => !isRemoved);
  }

  container(name: string): Container | undefined {
    return this.#containers.all.findLast((container) => container.spec.name === name);
  }

  async createContainer(spec: ContainerSpec, signal: AbortSignal): Promise<Container> {
    const container = await this.#inbox.ask(() => {
      this.#assertReady(`create container ${spec.name}`);
      return this.#containers.admit(spec);
    });
    try {
      await this.#protect(spec);
      const creating = AbortSignal.any([signal, this.#closing.signal]);
      const traceName = { name: 'create container', attributes: { 'k8s.container.name': printable(spec.name) } };
      await traced(traceName, () => createInGuest(container, spec, this.#site, creating));
    } catch (error) {
      await this.#inbox.ask(() => this.#containers.forget(container));
      const what = `Cannot create container ${spec.name}`;
      if (this.#failure !== undefined)
        throw new PodvmError('unavailable', `${what}: ${this.#failure}`, { cause: error });
      if (this.#closing.signal.aborted && !signal.aborted && kindOf(error) === 'cancelled')
        throw new PodvmError('cancelled', `${what}: ${messageOf(this.#closing.signal.reason)}`, { cause: error });
      throw error;
    }
    return container;
  }

  /** Lowers the machine's OOM score to the lowest of its containers, since they are killed together. */
  async #protect({ oomScoreAdj }: ContainerSpec): Promise<void> {
    const now = this.#resources.oomScoreAdj ?? oomScores.first;
    if (oomScoreAdj === undefined || oomScoreAdj >= now) return;
    this.#resources = { ...this.#resources, oomScoreAdj };
    await this.#live.kept?.record.change({ resources: this.#resources });
    await limitOnHost(this.#live.machine, { resources: this.#resources }, this.#live.limits.size);
  }

  async resize(change: LimitChange, signal: AbortSignal): Promise<readonly string[]> {
    await this.#inbox.ask(() => this.#assertReady('resize'));
    const { machine, guest, limits } = this.#live;
    const spec = { ...this.spec, resources: this.#resources };
    const resized = await resize(spec, change, { machine, guest, limits: limits.size }, signal);
    this.#resources = resized.resources;
    await this.#live.kept?.record.change({ resources: this.#resources });
    return resized.warnings;
  }

  async updateVolume(name: string, files: readonly VolumeFile[], signal: AbortSignal): Promise<void> {
    await this.#inbox.ask(() => this.#assertReady(`update volume ${name}`));
    const volume = this.spec.volumes.find((candidate) => candidate.name === name);
    if (volume?.kind !== 'push') {
      const kind = volume === undefined ? 'notFound' : 'failedPrecondition';
      throw new PodvmError(kind, `Cannot update volume ${name}: no push volume of that name`);
    }
    checkPushed(name, files, this.#live.limits.pushedTrees);
    await pushVolume(this.#live.guest, name, files, signal);
  }

  async setPaused(isPaused: boolean): Promise<void> {
    await this.#inbox.ask(() => this.#assertMoves(isPaused ? 'pause' : 'unpause'));
    await this.#pausing.set(isPaused);
  }

  async dial(port: number, address: string | undefined, signal: AbortSignal): Promise<Duplex> {
    await this.#inbox.ask(() => this.#assertReady(`connect to port ${port}`));
    await untilAborted(this.connected, signal);
    return await dial(this.#live.guest, port, address, signal);
  }

  onDiskTrouble(listener: (trouble: string) => void): void {
    this.#onDiskTrouble = listener;
  }

  async stats(signal: AbortSignal): Promise<SandboxStats> {
    await this.#inbox.ask(() => this.#assertReady('measure'));
    return statsOf(await this.#live.guest.call('stats', {}, signal), this.#containers.all);
  }

  async metrics(signal: AbortSignal): Promise<SandboxMetrics> {
    const counted = this.dropped(signal, droppedAgeMs).catch(() => undefined); // what the guest tells does not depend on it
    const measuring = [measureGuest(this.#live.guest, this.#containers.all, signal), counted] as const;
    const [figures, dropped] = await Promise.all(measuring);
    return { ...figures, dropped: dropped ?? new Map() };
  }

  async vmmPssKiB(): Promise<number> {
    await this.#inbox.ask(() => this.#assertReady('measure'));
    return await pssKiB(this.#live.machine.record.pid);
  }

  async hostFigures(signal: AbortSignal): Promise<HostFigures> {
    await this.#inbox.ask(() => this.#assertReady('measure'));
    const { machine, guest } = this.#live;
    this.#measured ??= await findMeasured(machine, signal);
    const figures = await measureHost(machine, this.#measured, this.#servers, guest.traffic);
    if (figures !== undefined) return figures;
    throw new PodvmError('unavailable', `Cannot measure: the machine of sandbox ${this.id} is gone`);
  }

  async dropped(signal: AbortSignal, maxAgeMs = 0): Promise<ReadonlyMap<string, number> | undefined> {
    await this.#inbox.ask(() => this.#assertReady('measure'));
    return await this.#live.parts.network.dropped(this.id, signal, maxAgeMs);
  }

  async examine(signal: AbortSignal): Promise<Examination> {
    await this.#inbox.ask(() => this.#assertReady('examine'));
    return await examine(this.#live, this.#containers.all, signal);
  }

  #assertReady(verb: string): void {
    this.#assertMoves(verb);
    this.#pausing.assertRuns(verb);
  }

  #assertMoves(verb: string): void {
    if (this.#moves.state === 'ready') return;
    const why = this.#failure === undefined ? '' : ` (${this.#failure})`;
    throw new PodvmError('failedPrecondition', `Cannot ${verb}: the sandbox is ${this.#moves.state}${why}`);
  }

  #onGuestEvent(event: AgentEvent): void {
    switch (event.kind) {
      case 'exited':
        this.#containers.byId(event.containerId)?.onGuestExit(event);
        return;
      case 'terminationMessage':
        this.#containers.byId(event.containerId)?.onTerminationMessage(event.data);
        return;
      case 'oomKilled':
        this.#tellOutOfMemory(event.containerId);
        return;
      case 'log':
        this.#log.debug('agent', { level: event.level, text: printable(event.text) });
        return;
    }
  }

  /** Logs only the first, second, fourth, eighth... event, since a guest may send any number. */
  #tellOutOfMemory(containerId: string): void {
    this.#outOfMemoryEvents += 1;
    this.#live.counts.outOfMemoryKills += 1;
    if (!Number.isInteger(Math.log2(this.#outOfMemoryEvents))) return;
    const fields = { container: printable(containerId), count: this.#outOfMemoryEvents };
    this.#log.warn('a process was killed for lack of memory', fields);
  }

  /**
   * Fails with the reason, after the loss of a part that cannot be replaced. Its containers still get the time to end
   * by themselves.
   */
  breakDown(why: string): void {
    this.#inbox.tell(() => {
      if (this.#ending !== undefined) return;
      this.#failure = why;
      for (const container of this.#containers.all) container.willEndFor(why);
      this.#end({ kind: 'stop', why }, this.#live.limits.killTimeoutMs);
    });
  }

  /** A bug in one sandbox fails that sandbox only. */
  #onBug(error: unknown): void {
    this.#log.error('sandbox failed by a bug in podvm', error);
    this.#inbox.tell(() => this.#fail(`bug in podvm: ${messageOf(error)}`));
  }

  // Ending.

  /** A second call with less grace shortens the first one's: the earlier deadline counts. */
  stop(graceMs: number): Promise<SandboxStatus> {
    if (graceMs <= 0) this.#hurry.abort();
    else
      void delay(graceMs, undefined, { signal: this.#hurry.signal, ref: false }).then(
        () => this.#hurry.abort(),
        () => {},
      );
    this.#inbox.tell(() => this.#end({ kind: 'stop', why: 'asked to' }, graceMs));
    return this.ended;
  }

  #fail(why: string): void {
    if (this.#ending !== undefined) return; // a machine that is being ended is expected to end
    this.#failure = why;
    this.#live.counts.failures += 1;
    this.#hurry.abort();
    this.#end({ kind: 'failure', why }, 0);
  }

  #end(ending: Ending, graceMs: number): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#discarding[Symbol.dispose]();
    this.#moves.moveTo('stopping', ending.why);
    this.#closing.abort(new PodvmError('cancelled', 'the sandbox is being stopped'));
    this.#finish(ending, graceMs).catch((error: unknown) => this.#onBug(error));
  }

  /** Never throws: logs what could not be undone, and makes the sandbox `failed` so that `remove` tries again. */
  async #finish(ending: Ending, graceMs: number): Promise<void> {
    await this.#goOn();
    if (ending.kind === 'stop') await this.#containers.stop(graceMs, this.#hurry.signal);
    else await this.#endMachine(ending.why);
    // Includes the guest's last lines, which are known now: callers that wait for a container report them.
    if (ending.kind === 'failure') this.#inbox.tell(() => this.#containers.lose(this.#failure ?? ending.why));
    // Takes as long as the end of the machine: the holdings wait for both, and report its errors.
    this.#live.attachment[Symbol.asyncDispose]().catch(() => undefined);
    try {
      await this.#live.holdings.end('ended');
    } catch (error) {
      this.#log.error('sandbox not completely cleaned up', error);
      this.#failure ??= messageOf(error);
    }
    this.#starts.end();
    this.#inbox.tell(() => {
      this.#containers.lose('the sandbox was stopped');
      const failure = this.#failure;
      const change = failure === undefined ? ({ state: 'stopped' } as const) : ({ state: 'failed', failure } as const);
      this.#moves.moveTo(change.state, failure ?? 'all is undone');
      this.#live.kept?.record.change(change).catch((error: unknown) => this.#onBug(error));
      this.#settleEnded(this.status);
    });
  }

  /** Lets the machine run again before its end. Never throws: a frozen machine can be killed, and taken over. */
  async #goOn(): Promise<void> {
    await this.#pausing.set(false).catch((error: unknown) => this.#log.error('sandbox does not continue', error));
  }

  /** Ends the machine first, so that no caller waits for one that no longer answers. */
  async #endMachine(why: string): Promise<void> {
    try {
      await this.#live.machine.kill();
    } catch (error) {
      this.#log.error('machine not ended', error); // its holding is undone next, which reports it
    }
    this.#failure = await withConsole(why, this.#live.machine);
  }

  /** Settles when all changes are recorded for the next process. */
  get saved(): Promise<void> {
    return this.#live.kept?.record.saved ?? Promise.resolve();
  }

  /** Whether it outlives this process. */
  get isKept(): boolean {
    return this.#live.kept !== undefined;
  }

  /** Disconnects from a kept sandbox, which keeps running. Output that its logs do not have yet stays in the guest. */
  async leave(): Promise<void> {
    if (this.#ending !== undefined) return void (await this.ended);
    this.#ending = 'left';
    this.#discarding[Symbol.dispose]();
    await this.#starts.leave();
    await this.#goOn(); // the next process would not know why it is frozen
    this.#closing.abort(new PodvmError('cancelled', 'podvm is stopping'));
    await this.#live.guest[Symbol.asyncDispose]();
    await this.#settled();
  }

  /** Waits until its logs and records are written; not for output that a follower does not take. */
  async #settled(): Promise<void> {
    const drained = Promise.all(this.#containers.all.map((container) => container.drained));
    await within(drained, { ms: this.#live.limits.drainTimeoutMs });
    await Promise.all([this.saved, ...this.#containers.all.map((container) => container.saved)]);
  }

  /** Called once, when the sandbox is removed. */
  onRemoved(forget: () => void): void {
    this.#live.holdings.hold('removed', forget);
  }

  remove(): Promise<void> {
    return this.#live.removals.undo(this.#remove);
  }

  readonly #remove = async (): Promise<void> => {
    await this.stop(0);
    await this.#settled(); // nothing may be written into the directory that is removed next
    await this.#live.holdings.remove();
  };
}
