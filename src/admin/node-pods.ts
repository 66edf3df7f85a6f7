import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log.ts';
import { findByName, type PodTable } from '#pod/pod-table.ts';
import type { PodConfig, PodFinish, PodParts, RunningPod, TerminalSize } from '#pod/pods.ts';
import { startPod } from '#pod/start-pod.ts';
import type { Activity } from './activity.ts';
import { detailsOf } from './describe-pod.ts';
import type { EndedPod, EndedPods } from './ended-pods.ts';
import type { PodSource } from './ended-record.ts';

export interface StartOptions {
  /** Keeps nothing of the pod after its end. */
  readonly removeAtEnd: boolean;
  readonly terminalSize?: TerminalSize;
}

/** A pod that runs, and what it takes to run it again. */
export interface LivePod {
  readonly kind: 'live';
  readonly namespace: string;
  readonly name: string;
  readonly pod: RunningPod;
  readonly source: PodSource;
  readonly options: StartOptions;
  /** Settles when it has ended, its sandbox is gone, and it is among the ended ones or forgotten. Never rejects. */
  readonly over: Promise<PodFinish>;
}

export type KnownPod = LivePod | ({ readonly kind: 'ended' } & EndedPod);

export interface RunParts extends PodParts {
  readonly pods: PodTable;
  /** Facts about this node for every pod. */
  readonly node: Pick<PodConfig, 'nodeName' | 'hostIP' | 'seccompDirectory' | 'machine'>;
  readonly log: Log;
}

export interface NodePodsParts extends RunParts {
  readonly ended: EndedPods;
}

/** The pods that this process was asked to run, with those that have ended: started, found, removed and run again. */
export class NodePods implements AsyncDisposable {
  readonly #parts: NodePodsParts;
  readonly #activity: Activity;
  readonly #live = new Map<RunningPod, LivePod>();

  constructor(parts: NodePodsParts, activity: Activity) {
    this.#parts = parts;
    this.#activity = activity;
  }

  /**
   * Starts pods, all or none. Each takes the place of an ended one of its name. Subscriptions in the same turn miss
   * nothing. Errors: `alreadyExists`.
   */
  start(sources: readonly PodSource[], options: StartOptions, signal?: AbortSignal): readonly LivePod[] {
    for (const { pod } of sources) {
      if (this.#parts.pods.has(pod.metadata.namespace, pod.metadata.name)) throw nameRuns(pod.metadata);
    }
    return sources.map((source) => this.#startOne(source, options, signal ?? new AbortController().signal));
  }

  /** Finds a pod; of one name, the one that runs. Errors: `notFound`, `invalid` (ambiguous). */
  find(namespace: string | undefined, name: string): KnownPod {
    return findByName(this.#known(), namespace, name);
  }

  /** The same, of those that run. Errors also: `failedPrecondition`, which completes `Cannot`. */
  findLive(namespace: string | undefined, name: string, verb: string): RunningPod {
    const found = this.find(namespace, name);
    if (found.kind === 'live') return found.pod;
    throw new PodvmError('failedPrecondition', `Cannot ${verb} ${found.name}: the pod has ended`, {
      fix: `Run it again with \`podvm start ${found.name}\`; \`podvm logs ${found.name}\` prints what it wrote.`,
    });
  }

  /** Those that have ended, without those whose name a running one has. */
  ended(): readonly EndedPod[] {
    return this.#parts.ended.list().filter(({ namespace, name }) => !this.#parts.pods.has(namespace, name));
  }

  /** Runs an ended pod again. Errors: `corrupt`, `alreadyExists`. */
  async startAgain(pod: EndedPod): Promise<LivePod> {
    return this.#startAlone(await this.#parts.ended.sourceOf(pod), { removeAtEnd: false });
  }

  /** Ends a pod and runs it again. */
  async restart(live: LivePod, graceSeconds: number | undefined): Promise<LivePod> {
    await live.pod.terminate(graceSeconds);
    await live.over;
    return this.#startAlone(live.source, live.options);
  }

  /** Errors: `alreadyExists`; `failedPrecondition` for one that runs, whose name its machine and network have. */
  async rename(pod: KnownPod, name: string): Promise<EndedPod> {
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

  /** Ends all pods, and waits until they are over. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#live.values()].map(({ pod, over }) => pod.terminate().then(() => over)));
  }

  #known(): readonly KnownPod[] {
    return [...this.#live.values(), ...this.ended().map((pod) => ({ kind: 'ended' as const, ...pod }))];
  }

  #startAlone(source: PodSource, options: StartOptions): LivePod {
    const [started] = this.start([source], options);
    if (started === undefined) throw new Error('a pod that was started is missing');
    return started;
  }

  #startOne(source: PodSource, options: StartOptions, signal: AbortSignal): LivePod {
    const { configMaps, secrets, network } = source;
    const { terminalSize } = options;
    const config = { ...this.#parts.node, configMaps, secrets, network, ...(terminalSize && { terminalSize }) };
    const pod = startPod(source.pod, config, this.#parts, signal);
    const { namespace, name } = pod;
    const listed = this.#parts.pods.add(pod);
    const activity = this.#activity.begin();
    const live: LivePod = {
      kind: 'live',
      namespace,
      name,
      pod,
      source,
      options,
      over: this.#untilOver(pod, source, options).then((finish) => {
        listed[Symbol.dispose]();
        this.#live.delete(pod);
        activity[Symbol.dispose]();
        return finish;
      }),
    };
    this.#live.set(pod, live);
    return live;
  }

  /** What cannot be recorded is logged: the pod itself does not depend on it. */
  async #untilOver(pod: RunningPod, source: PodSource, { removeAtEnd }: StartOptions): Promise<PodFinish> {
    const { ended, log } = this.#parts;
    const tried = async <T>(what: string, act: () => Promise<T>): Promise<T | undefined> =>
      await act().catch((error: unknown) => {
        log.error(what, error, { pod: `${pod.namespace}/${pod.name}` });
        return undefined;
      });
    const replaced = ended.list().filter(({ namespace, name }) => namespace === pod.namespace && name === pod.name);
    for (const { id } of replaced) await tried('ended pod not removed', () => ended.remove(id));
    const signal = new AbortController().signal;
    const id = removeAtEnd
      ? undefined
      : await tried('pod not recorded', async () => await ended.begin(await detailsOf(pod, signal), source));
    const finish = await pod.finished;
    const containers = pod.sandbox?.status.containers ?? [];
    const isInterrupted = containers.length === 0 && finish.reason === 'Terminated'; // leaves nothing
    if (id !== undefined && isInterrupted) await tried('interrupted start not forgotten', () => ended.remove(id));
    const kept =
      id === undefined || isInterrupted
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
    await tried('ended pod not listed', async () => await kept?.list());
    return finish;
  }
}

const nameRuns = ({ namespace, name }: { readonly namespace: string; readonly name: string }) =>
  new PodvmError('alreadyExists', `Cannot run pod ${namespace}/${name}: a pod of that name is running`, {
    fix: `Stop it with \`podvm stop ${namespace}/${name}\`, or rename the new pod.`,
  });
