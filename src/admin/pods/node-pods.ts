import { randomUUID } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import { hasEnded } from '#api/pod-actions.ts';
import type { NodeEvent, PodOutcome } from '#api/pods.ts';
import type { Log } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import { findByName, type PodTable } from '#pod/pod-table.ts';
import type { ContainerSize, PodConfig, PodFinish, PodParts, RunningPod } from '#pod/pods.ts';
import { withSize } from '#pod/resize.ts';
import { resumePod, startPod } from '#pod/start-pod.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { Activity } from '../activity.ts';
import { detailsOf, eventOf } from './describe-pod.ts';
import { type EndedPod, type EndedPods, isLost, secretsEnded, type UnfinishedPod } from '../record/ended-pods.ts';
import { type ForeignPod, foreignPods, notOurs, refused } from './foreign-pods.ts';
import type { PodSource, StartOptions, StoredSource } from '../record/ended-record.ts';
import { type KnownPod, type LivePod, onlyOf, untilOver } from './known-pod.ts';
import type { LiveRecordWriter } from '../record/live-record.ts';
import { reached, type ReachedPod } from './reached-pod.ts';

export interface RunParts extends PodParts {
  readonly pods: PodTable;
  /** Facts about this node for every pod. */
  readonly node: Pick<PodConfig, 'nodeName' | 'hostIP' | 'volumePath' | 'seccompDirectory' | 'machine'>;
  readonly log: Log;
}

/** Settings for pods that outlive the process. */
export interface PodKeeping {
  /** Present boot of the host. */
  readonly bootId: string;
  /** Runs pods with `restartPolicy: Always` again if they ended with an earlier boot of the host. */
  readonly startsAfterBoot: boolean;
}

export interface NodePodsParts extends RunParts {
  readonly ended: EndedPods;
  /** Address of the server for names of Services, for pods that start now. */
  readonly nameserver: () => string | undefined;
  /** Undefined: pods end with this process, as those of one command do. */
  readonly keeping?: PodKeeping;
}

/** Origin of a pod of this process: new, or left by an earlier process (`before`). */
interface Beginning {
  readonly id: string;
  readonly before?: { readonly left: UnfinishedPod; readonly sandbox: Sandbox; readonly hasLostSecrets: boolean };
}

/** Starts, finds, removes and restarts the pods of this process, including those that have ended. */
export class NodePods implements AsyncDisposable {
  readonly #parts: NodePodsParts;
  readonly #activity: Activity;
  readonly #live = new Map<RunningPod, LivePod>();
  readonly #writers = new Map<RunningPod, LiveRecordWriter>();
  readonly #recorded = new Map<RunningPod, Promise<string | undefined>>();
  readonly #leaving = Promise.withResolvers<void>();
  /** Each starts a pod again that ended with an earlier boot of the host. */
  readonly #endedWithHost: (() => void)[] = [];
  /** Pods of podvm itself that only another podvm can take over; each settles when its end is on record. */
  readonly #left = new Map<Sandbox, Promise<void>>();
  readonly #beginListeners = new Set<(live: LivePod) => void>();

  constructor(parts: NodePodsParts, activity: Activity) {
    this.#parts = parts;
    this.#activity = activity;
  }

  /**
   * Starts all of the pods or none. Each replaces an ended pod of the same name. Subscribers in the same turn of the
   * event loop miss no event. Errors: `alreadyExists`.
   */
  start(sources: readonly PodSource[], options: StartOptions): readonly LivePod[] {
    for (const { pod } of sources) {
      if (this.#parts.pods.has(pod.metadata.namespace, pod.metadata.name)) throw nameRuns(pod.metadata);
    }
    return sources.map((source) => this.#beginOne(source, options, { id: randomUUID() }));
  }

  /**
   * Takes over the pods that an earlier process left running, and records those that have ended since. Returns the former.
   */
  async recover(): Promise<readonly LivePod[]> {
    const { ended, keeping, sandboxes, log } = this.#parts;
    if (keeping === undefined) return [];
    const takenOver: LivePod[] = [];
    const kept = new Set(sandboxes.list().filter(({ spec }) => spec.keptFor === 'podvm'));
    for (const left of ended.unfinished()) {
      const sandbox = [...kept].find(({ spec }) => isOf(left, spec));
      if (sandbox?.status.leftAlone !== undefined) continue; // below
      try {
        const live = await this.#recoverOne(left, sandbox, keeping);
        if (live !== undefined) takenOver.push(live);
        if (sandbox !== undefined) kept.delete(sandbox);
      } catch (error) {
        log.error('pod not taken over', error, { pod: `${left.namespace}/${left.name}` });
        await ended.lose(left).catch((cause: unknown) => log.error('lost pod not listed', cause));
      }
    }
    for (const sandbox of kept) {
      if (sandbox.status.leftAlone !== undefined) {
        this.#left.set(sandbox, this.#loseAtEnd(sandbox)); // listed among the foreign pods
        continue;
      }
      log.warn('removing a sandbox of a pod that is not on record', { sandbox: sandbox.id });
      await sandbox.remove().catch((error: unknown) => log.error('sandbox not removed', error));
    }
    return takenOver;
  }

  async #recoverOne(
    left: UnfinishedPod,
    sandbox: Sandbox | undefined,
    keeping: PodKeeping,
  ): Promise<LivePod | undefined> {
    const { ended, log } = this.#parts;
    const { id, live } = left;
    const { hasSecrets: hasLostSecrets, ...source } = await ended.takeUp(left);
    const options: StartOptions = {
      removeAtEnd: live.removeAtEnd,
      ...(live.isApplied === true ? { isApplied: true } : {}),
      ...(live.terminalSize === undefined ? {} : { terminalSize: live.terminalSize }),
    };
    const resumed = sandbox && this.#beginOne(source, options, { id, before: { left, sandbox, hasLostSecrets } });
    if (resumed === undefined) await (live.removeAtEnd ? ended.remove(id) : ended.lose(left));
    if (sandbox?.status.state === 'ready' || !endedWithHost(left, source, keeping)) return resumed;
    if (hasLostSecrets) {
      log.warn('pod not started again: its Secrets ended with the node', { pod: `${left.namespace}/${left.name}` });
      return resumed;
    }
    this.#endedWithHost.push(() => {
      void Promise.resolve(resumed?.over)
        .then(() => this.#startAlone(source, options))
        .catch((error: unknown) => log.error('pod not started again', error));
    });
    return resumed;
  }

  /** Starts the pods that `recover` found to have ended with the host. They get the name server of that time. */
  startAfterBoot(): void {
    for (const start of this.#endedWithHost.splice(0)) start();
  }

  /** Finds a pod, preferring a running one among those of the name. Errors: `notFound`, `invalid` (ambiguous). */
  find(namespace: string | undefined, name: string): KnownPod {
    return findByName(this.#known(), namespace, name);
  }

  /** Finds a running pod. Errors: those of `find`; `failedPrecondition`, where `verb` completes `Cannot`. */
  reach(namespace: string | undefined, name: string, verb: string): ReachedPod {
    const found = this.find(namespace, name);
    if (found.kind !== 'ended') return reached(found);
    throw refused(hasEnded(found.name, verb));
  }

  /** Returns the running pods of this process. */
  live(): readonly LivePod[] {
    return [...this.#live.values()];
  }

  /** Ids of the images of running pods of all owners, including images of containers that do not exist yet. */
  *imagesInUse(images: Pick<ImageStore, 'get'>): Generator<string> {
    for (const { containers } of this.#parts.sandboxes.list())
      for (const { status } of containers) yield status.imageId;
    for (const { pod } of this.live()) {
      for (const { image } of pod.status.containers) yield images.get(image)?.id ?? image;
    }
  }

  /** Subscribes to pods that begin. Returns a function that ends the subscription. */
  onBegin(listener: (live: LivePod) => void): () => void {
    this.#beginListeners.add(listener);
    return () => this.#beginListeners.delete(listener);
  }

  /** Events of all pods of `podvm run`, the oldest first. */
  events(): readonly NodeEvent[] {
    const pods = [
      ...this.live().map(({ pod }) => ({ ...nameOf(pod), events: pod.events.map(eventOf) })),
      ...this.ended().map(({ namespace, name, details: { events } }) => ({ namespace, name, events })),
    ];
    return pods
      .flatMap(({ namespace, name, events }) => events.map((event) => ({ namespace, name, ...event })))
      .toSorted((one, other) => one.at.localeCompare(other.at));
  }

  /** Pods of other programs, without those that share the name of a pod of this process. */
  foreign(): readonly ForeignPod[] {
    return foreignPods(this.#parts.sandboxes).filter(({ namespace, name }) => !this.#parts.pods.has(namespace, name));
  }

  /** Pods that have ended, without those that share the name of a running one. */
  ended(): readonly EndedPod[] {
    return this.#parts.ended.list().filter(({ namespace, name }) => !this.#parts.pods.has(namespace, name));
  }

  /** Runs an ended pod again. Errors: `corrupt`, `alreadyExists`; `failedPrecondition` for Secrets that are gone. */
  async startAgain(pod: EndedPod, { isApplied = false } = {}): Promise<LivePod> {
    const options = { removeAtEnd: false, ...(isApplied ? { isApplied } : { awaited: 'start' as const }) };
    return this.#startAlone(await this.#parts.ended.sourceOf(pod), options);
  }

  /** Records for the next process that an ended pod is due to be started again; `undefined`: that it no longer is. */
  async setFailures(name: Named, failures: number | undefined): Promise<void> {
    for (const pod of this.ended()) if (isNamed(pod, name)) await this.#parts.ended.setFailures(pod, failures);
  }

  /** Ends a pod and runs it again. Errors: `failedPrecondition` for Secrets that are gone. */
  async restart(live: LivePod, graceSeconds: number | undefined): Promise<LivePod> {
    if (live.hasLostSecrets) throw secretsEnded('restart', live.name);
    void live.pod.terminate(graceSeconds);
    await untilOver(live);
    return this.#startAlone(live.source, live.options);
  }

  /** Lets a running pod be started again when its machine fails, as if `podvm apply` had started it. */
  async takeApplied(live: LivePod): Promise<void> {
    if (live.options.isApplied === true) return;
    live.options = { ...live.options, isApplied: true };
    await this.#writers.get(live.pod)?.apply();
  }

  /**
   * Gives a running pod other ConfigMaps and Secrets; one that ends meanwhile has them when it is started again. Errors:
   * those of `RunningPod.changeData`.
   */
  async changeData(live: LivePod, data: Pick<PodSource, 'configMaps' | 'secrets'>, signal: AbortSignal): Promise<void> {
    const recorded = this.#recorded.get(live.pod); // is forgotten with the pod
    await live.pod.changeData(data, signal);
    live.source = { ...live.source, ...data };
    live.hasLostSecrets = false;
    await this.#recordSource(live, recorded);
  }

  /** Changes limits of a container of a running pod. Errors: those of `RunningPod.resize`. */
  async resize(live: LivePod, size: ContainerSize, signal: AbortSignal): Promise<readonly string[]> {
    const recorded = this.#recorded.get(live.pod); // is forgotten with the pod
    const warnings = await live.pod.resize(size, signal);
    live.source = { ...live.source, pod: withSize(live.source.pod, size) };
    await this.#recordSource(live, recorded);
    return warnings;
  }

  async #recordSource({ source }: LivePod, recorded: Promise<string | undefined> | undefined): Promise<void> {
    const id = await recorded;
    if (id !== undefined) await this.#parts.ended.changeSource(id, source);
  }

  /** Errors: `alreadyExists`; `failedPrecondition` for a running pod, whose machine and network use its name. */
  async rename(pod: KnownPod, name: string): Promise<EndedPod> {
    if (pod.kind === 'foreign') throw notOurs(pod, 'rename');
    if (pod.kind === 'live') {
      throw new PodvmError('failedPrecondition', `Cannot rename ${pod.name}: the pod runs`, {
        fix: `Stop it first: \`podvm stop ${pod.name}\`.`,
      });
    }
    const { namespace } = pod;
    if (this.#known().some((other) => other.namespace === namespace && other.name === name)) {
      throw new PodvmError('alreadyExists', `Cannot rename ${pod.name}: there is a pod ${namespace}/${name}`, {
        fix: 'Choose another name, or remove that pod with `podvm rm`.',
      });
    }
    return await this.#parts.ended.rename(pod, name);
  }

  /** Removes the records of ended pods. */
  async forget(isGone: (pod: EndedPod) => boolean): Promise<void> {
    for (const { id } of this.ended().filter(isGone)) await this.#parts.ended.remove(id);
  }

  /** What an ended pod was made of; undefined if there is none, or if that cannot be read. */
  async endedSource(namespace: string, name: string): Promise<PodSource | undefined> {
    const pod = this.ended().find((other) => isNamed(other, { namespace, name }));
    return pod && (await this.#parts.ended.shownSource(pod).catch(() => undefined));
  }

  /**
   * How a pod of an earlier process has ended, once it has; undefined if it was lost with its machine, or is not on record.
   * Never rejects.
   */
  async outcomeOf(name: Named): Promise<PodOutcome | undefined> {
    for (const [{ spec }, over] of this.#left) if (isNamed(spec, name)) await over;
    const outcome = this.ended().find((pod) => isNamed(pod, name))?.outcome;
    return outcome === undefined || isLost(outcome) ? undefined : outcome;
  }

  /** Ends a pod that is left alone. One of podvm itself is then listed as ended; the client of another removes it. */
  async endLeft({ sandbox }: ForeignPod): Promise<void> {
    await sandbox.stop(0); // nothing in it can be asked to end
    await this.#left.get(sandbox);
  }

  /** Removes a sandbox that is left alone once it has ended, and lists its pod as ended. Never rejects. */
  async #loseAtEnd(sandbox: Sandbox): Promise<void> {
    const { ended, log } = this.#parts;
    await sandbox.ended;
    try {
      await sandbox.remove();
      for (const left of ended.unfinished()) if (isOf(left, sandbox.spec)) await ended.lose(left);
    } catch (error) {
      log.error('pod that was left alone not removed', error, { sandbox: sandbox.id });
    }
    this.#left.delete(sandbox);
  }

  /** Ends all pods, and waits until they are over. */
  async end(): Promise<void> {
    await Promise.all([...this.#live.values()].map(({ pod, over }) => pod.terminate().then(() => over)));
  }

  /** Leaves kept pods to the next process, and ends the others. */
  async [Symbol.asyncDispose](): Promise<void> {
    const left = new Set([...this.#live.keys()].filter((pod) => pod.leave()));
    this.#leaving.resolve();
    await Promise.all(
      [...this.#live.values()].map(async ({ pod, over }) => {
        if (left.has(pod)) return await this.#writers.get(pod)?.saved;
        await pod.terminate();
        await over;
      }),
    );
  }

  #known(): readonly KnownPod[] {
    const foreign = this.foreign();
    const isForeign = (pod: EndedPod) => foreign.some((other) => isNamed(pod, other));
    return [
      ...this.#live.values(),
      ...foreign.map((pod) => ({ kind: 'foreign' as const, ...pod })),
      ...this.ended().flatMap((pod) => (isForeign(pod) ? [] : [{ kind: 'ended' as const, ...pod }])),
    ];
  }

  #startAlone(source: PodSource, options: StartOptions): LivePod {
    return onlyOf(this.start([source], options));
  }

  #beginOne(source: PodSource, options: StartOptions, { id, before }: Beginning): LivePod {
    const { ended, keeping, node } = this.#parts;
    const { configMaps, secrets, logins = [], hasLostLogins = false, network } = source;
    const { terminalSize, awaited } = options;
    const nameserver = this.#parts.nameserver();
    const begun = Promise.withResolvers<void>();
    if (before !== undefined) begun.resolve();
    const writer = keeping && ended.writerOf(id, { bootId: keeping.bootId, ...options }, begun.promise);
    const config: PodConfig = {
      ...node,
      ...{ configMaps, secrets, logins, hasLostLogins, network },
      ...(nameserver !== undefined && { nameserver }),
      ...(terminalSize && { terminalSize }),
      ...(awaited && { awaited }),
      ...(writer && { kept: { save: (memory) => writer.save(memory) } }),
      ...(before && { hasLostSecrets: before.hasLostSecrets }),
    };
    const pod =
      before === undefined
        ? startPod(source.pod, config, this.#parts, new AbortController().signal)
        : resumePod(source.pod, config, this.#parts, { memory: before.left.live.memory, sandbox: before.sandbox });
    const { namespace, name } = pod;
    const listed = this.#parts.pods.add(pod);
    const activity = this.#activity.begin();
    const recorded = Promise.withResolvers<string | undefined>();
    this.#recorded.set(pod, recorded.promise);
    const live: LivePod = {
      kind: 'live',
      namespace,
      name,
      pod,
      source,
      options,
      left: this.#leaving.promise,
      hasLostSecrets: before?.hasLostSecrets === true,
      over: this.#untilOver(pod, source, options, {
        id,
        begun: before === undefined ? begun : undefined,
        recorded,
      }).then((finish) => {
        listed[Symbol.dispose]();
        this.#live.delete(pod);
        this.#writers.delete(pod);
        this.#recorded.delete(pod);
        activity[Symbol.dispose]();
        return finish;
      }),
    };
    this.#live.set(pod, live);
    if (writer !== undefined) this.#writers.set(pod, writer);
    for (const listener of this.#beginListeners) listener(live);
    return live;
  }

  /**
   * Waits for the end of a pod and records it; failures to record are logged, because the pod does not depend on them.
   * `begun`: resolved once a new pod is recorded; undefined for one that already is.
   */
  async #untilOver(
    pod: RunningPod,
    source: PodSource,
    { removeAtEnd }: StartOptions,
    record: {
      readonly id: string;
      readonly begun: PromiseWithResolvers<void> | undefined;
      readonly recorded: PromiseWithResolvers<string | undefined>;
    },
  ): Promise<PodFinish> {
    const { ended, log } = this.#parts;
    const tried = async <T>(what: string, act: () => Promise<T>): Promise<T | undefined> =>
      await act().catch((error: unknown) => {
        log.error(what, error, { pod: `${pod.namespace}/${pod.name}` });
        return undefined;
      });
    const signal = new AbortController().signal;
    const id =
      record.begun === undefined
        ? record.id
        : await tried('pod not recorded', async () => {
            const replaced = ended.list().filter((other) => isOf(other, pod));
            for (const other of replaced) await ended.remove(other.id);
            if (removeAtEnd && this.#parts.keeping === undefined) return undefined;
            return await ended.begin(await detailsOf(pod, signal), source, record.id);
          });
    record.begun?.resolve();
    record.recorded.resolve(id);
    const finish = await pod.finished;
    await this.#writers.get(pod)?.saved; // the writer writes to the directory of the record
    const containers = pod.sandbox?.status.containers ?? [];
    const isInterrupted = containers.length === 0 && finish.reason === 'Terminated'; // leaves nothing
    const isForgotten = isInterrupted || removeAtEnd;
    const kept =
      id === undefined || isForgotten
        ? undefined
        : await tried('ended pod not kept', async () => {
            const logs = containers.map(({ name: container, attempt, logPath: path }) => ({
              container,
              attempt,
              path,
            }));
            const at = new Date(this.#parts.clock.now()).toISOString();
            return await ended.keep(id, await detailsOf(pod, signal), { at, ...finish }, logs);
          });
    await tried('ended pod not removed from its machine', () => pod.remove());
    if (id !== undefined && isForgotten) await tried('record of a pod not removed', () => ended.remove(id));
    await tried('ended pod not listed', async () => await kept?.list());
    return finish;
  }
}

interface Named {
  readonly namespace: string;
  readonly name: string;
}

const nameOf = ({ namespace, name }: Named): Named => ({ namespace, name });
const isNamed = (one: Named, other: Named): boolean => one.namespace === other.namespace && one.name === other.name;

const isOf = (
  pod: {
    readonly namespace: string;
    readonly name: string;
    readonly live?: { readonly memory: { readonly uid: string } };
  },
  other: { readonly namespace: string; readonly name: string; readonly uid: string },
): boolean => isNamed(pod, other) && (pod.live === undefined || pod.live.memory.uid === other.uid);

/** Whether a pod that should always run ended because the host did. */
function endedWithHost(
  { live: { bootId, memory } }: UnfinishedPod,
  { pod }: Pick<StoredSource, 'pod'>,
  { bootId: present, startsAfterBoot }: PodKeeping,
): boolean {
  return startsAfterBoot && bootId !== present && pod.spec.restartPolicy === 'Always' && memory.ending === undefined;
}

const nameRuns = ({ namespace, name }: { readonly namespace: string; readonly name: string }) =>
  new PodvmError('alreadyExists', `Cannot run pod ${namespace}/${name}: a pod of that name is running`, {
    fix: `Stop it with \`podvm stop ${namespace}/${name}\`, or rename the new pod.`,
  });
