import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import type { ContainerConfig, PodSandboxConfig } from './schema/api_pb.ts';

/** A sandbox that was made through CRI, and what its client said of it. */
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
  /** Limits as they were last asked for. */
  resources: NonNullable<ContainerConfig['linux']>['resources'];
  /** Its end has been told to all who wait for it: before that, a client would look for a message that is not there. */
  isEndKnown: boolean;
}

/** What there is, by id. A client may give the first characters of an id, as long as they name one only. */
export class KnownPods {
  readonly #pods = new Map<string, KnownPod>();
  readonly #containers = new Map<string, KnownContainer>();

  get pods(): Iterable<KnownPod> {
    return this.#pods.values();
  }

  get containers(): Iterable<KnownContainer> {
    return this.#containers.values();
  }

  addPod(pod: KnownPod): void {
    this.#pods.set(pod.sandbox.id, pod);
  }

  addContainer(known: KnownContainer): void {
    const { id } = known.container.status;
    this.#containers.set(id, known);
    known.pod.containers.set(id, known);
  }

  removePod(pod: KnownPod): void {
    for (const id of pod.containers.keys()) this.#containers.delete(id);
    pod.containers.clear();
    this.#pods.delete(pod.sandbox.id);
  }

  removeContainer(known: KnownContainer): void {
    const { id } = known.container.status;
    this.#containers.delete(id);
    known.pod.containers.delete(id);
  }

  /** Undefined when there is none. Errors: `invalid` when several ids begin so. */
  findPod(id: string): KnownPod | undefined {
    return find('pod sandbox', this.#pods, id);
  }

  findContainer(id: string): KnownContainer | undefined {
    return find('container', this.#containers, id);
  }

  /** Errors: `notFound`, `invalid`. */
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
  throw new PodvmError('invalid', `Cannot find ${what} ${printable(id, 80)}: ${matching.length} ids begin so`, {
    fix: 'Give more of the id.',
  });
}

function missing(what: string, id: string): never {
  throw new PodvmError('notFound', `Cannot find ${what} ${printable(JSON.stringify(id), 80)}: there is no such one`);
}
