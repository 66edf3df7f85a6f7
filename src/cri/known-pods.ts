import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import type { ContainerConfig, PodSandboxConfig } from './schema/api_pb.ts';

/** A sandbox made through CRI, with its client's config. */
export interface KnownPod {
  readonly sandbox: Sandbox;
  readonly config: PodSandboxConfig;
  readonly runtimeHandler: string;
  readonly containers: Map<string, KnownContainer>;
}

export interface KnownContainer {
  readonly container: Container;
  readonly config: ContainerConfig;
  readonly pod: KnownPod;
  /** Limits of the latest request. */
  resources: NonNullable<ContainerConfig['linux']>['resources'];
  /**
   * Whether all waiters know of its end. Before that, a client would look for a termination message that does not exist
   * yet.
   */
  isEndKnown: boolean;
}

/** Records known pods for the next process. */
export interface PodKeeper {
  save(pod: KnownPod): Promise<void>;
  remove(sandboxId: string): Promise<void>;
}

/** All pods and containers, by id. A unique prefix of an id is accepted. */
export class KnownPods {
  readonly #pods = new Map<string, KnownPod>();
  readonly #containers = new Map<string, KnownContainer>();
  readonly #records: PodKeeper;

  /** Changes apply immediately; their promises settle when they are recorded. */
  constructor(records: PodKeeper) {
    this.#records = records;
  }

  get pods(): Iterable<KnownPod> {
    return this.#pods.values();
  }

  get containers(): Iterable<KnownContainer> {
    return this.#containers.values();
  }

  addPod(pod: KnownPod): Promise<void> {
    this.#pods.set(pod.sandbox.id, pod);
    return this.#records.save(pod);
  }

  addContainer(known: KnownContainer): Promise<void> {
    const { id } = known.container.status;
    this.#containers.set(id, known);
    known.pod.containers.set(id, known);
    return this.#records.save(known.pod);
  }

  removePod(pod: KnownPod): Promise<void> {
    for (const id of pod.containers.keys()) this.#containers.delete(id);
    pod.containers.clear();
    this.#pods.delete(pod.sandbox.id);
    return this.forget(pod.sandbox.id);
  }

  removeContainer(known: KnownContainer): Promise<void> {
    const { id } = known.container.status;
    this.#containers.delete(id);
    known.pod.containers.delete(id);
    return this.#records.save(known.pod);
  }

  setResources(known: KnownContainer, resources: KnownContainer['resources']): Promise<void> {
    known.resources = resources;
    return this.#records.save(known.pod);
  }

  /** Deletes the record of a sandbox that no longer exists. */
  forget(sandboxId: string): Promise<void> {
    return this.#records.remove(sandboxId);
  }

  /** Returns undefined for an unknown id. Errors: `invalid` for an ambiguous prefix. */
  findPod(id: string): KnownPod | undefined {
    return find('pod sandbox', this.#pods, id);
  }

  findContainer(id: string): KnownContainer | undefined {
    return find('container', this.#containers, id);
  }

  /** Returns the pod. Errors: `notFound`, `invalid`. */
  pod(id: string): KnownPod {
    return this.findPod(id) ?? missing('pod sandbox', id);
  }

  container(id: string): KnownContainer {
    return this.findContainer(id) ?? missing('container', id);
  }
}

function find<T>(what: string, all: ReadonlyMap<string, T>, id: string): T | undefined {
  const exact = all.get(id);
  if (exact !== undefined || id === '') return exact;
  const matching = [...all].filter(([key]) => key.startsWith(id));
  if (matching.length <= 1) return matching[0]?.[1];
  throw new PodvmError(
    'invalid',
    `Cannot find ${what} ${printable(id, 80)}: the prefix matches ${matching.length} ids`,
    {
      fix: 'Use a longer prefix of the id.',
    },
  );
}

function missing(what: string, id: string): never {
  throw new PodvmError('notFound', `Cannot find ${what} ${printable(JSON.stringify(id), 80)}: no such id`, {
    fix: 'See `crictl pods` and `crictl ps --all` for the ids.',
  });
}
