import { PodvmError } from '#base/errors.ts';
import { checkClash, checkOwner, checkRequest } from '../attachment-request.ts';
import { capabilitiesOf } from '../cni/pod-capabilities.ts';
import type {
  Attachment,
  AttachmentCheck,
  AttachmentOwner,
  AttachmentRequest,
  GuestNetwork,
  Network,
} from '../network.ts';
import { isLoopback } from '../port-address.ts';

/** An attachment on record, made by any process. */
interface Attached {
  readonly request: AttachmentRequest;
  readonly mac: string;
  /** Number from which its address is made. */
  readonly number: number;
  owner: AttachmentOwner;
  guest: GuestNetwork | undefined;
}

/** The pods' networks of a host, in memory: outlives the network that made it, as the kernel outlives a process. */
export class FakeHostNetwork {
  readonly attached = new Map<string, Attached>();

  /** The host ports that lead to the pod. */
  forwards(sandboxId: string): readonly number[] {
    const found = this.attached.get(sandboxId);
    if (found?.guest === undefined) return [];
    return found.owner.hostPorts.filter(({ hostIP }) => !isLoopback(hostIP)).map(({ hostPort }) => hostPort);
  }

  /** Describes the pod that has a host port. */
  holderOf(protocol: string, port: number): string {
    for (const { owner } of this.attached.values()) {
      const isHeld = owner.hostPorts.some((one) => one.hostPort === port && one.protocol === protocol);
      if (isHeld) return `pod ${owner.podNamespace}/${owner.podName} has it`;
    }
    return 'no pod has it';
  }

  freeNumber(): number {
    const taken = new Set([...this.attached.values()].map(({ number }) => number));
    for (let number = 0; ; number += 1) if (!taken.has(number)) return number;
  }
}

/** The network as one process sees it, without a kernel; it passes the same conformance suite as the real one. */
export function createFakeNetwork(host = new FakeHostNetwork()): Network {
  return new FakeNetwork(host);
}

class FakeNetwork implements Network {
  readonly #host: FakeHostNetwork;
  readonly #active = new Set<string>();

  constructor(host: FakeHostNetwork) {
    this.#host = host;
  }

  async prepare(request: AttachmentRequest, signal: AbortSignal): Promise<Attachment> {
    checkRequest(request);
    const { sandboxId } = request;
    if (this.#host.attached.has(sandboxId))
      throw new PodvmError('alreadyExists', `Cannot attach ${sandboxId}: it has an attachment`);
    const number = this.#host.freeNumber();
    const mac = `02:00:00:00:00:${(number + 1).toString(16).padStart(2, '0')}`;
    this.#claim(sandboxId, mac, request);
    signal.throwIfAborted();
    const attached: Attached = { request, mac, number, owner: request, guest: undefined };
    this.#host.attached.set(sandboxId, attached);
    return this.#open(attached);
  }

  async adopt(sandboxId: string): Promise<Attachment | undefined> {
    const attached = this.#host.attached.get(sandboxId);
    return attached === undefined ? undefined : this.#open(attached);
  }

  async collect(keep: ReadonlySet<string>): Promise<readonly string[]> {
    const left = [...this.#host.attached.keys()].filter((id) => !keep.has(id) && !this.#active.has(id));
    for (const id of left) this.#host.attached.delete(id);
    return left.sort();
  }

  mend(): Promise<ReadonlyMap<string, string>> {
    return Promise.resolve(new Map());
  }

  builtIn() {
    return Promise.resolve(undefined); // a configured network
  }

  readiness() {
    return Promise.resolve({ isReady: true, name: 'fake', path: undefined } as const);
  }

  async check(): Promise<readonly AttachmentCheck[]> {
    return [...this.#host.attached.values()].flatMap(({ guest, owner, request: { sandboxId } }) => {
      const { podName, podNamespace } = owner;
      if (guest === undefined) return [];
      return [{ sandboxId, podName, podNamespace, network: 'fake', verdict: 'well', detail: 'nothing was asked' }];
    });
  }

  async dropped(sandboxId: string): Promise<ReadonlyMap<string, number> | undefined> {
    return this.#host.attached.get(sandboxId)?.guest === undefined ? undefined : new Map([['forged', 0]]);
  }

  droppedPackets(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Errors: `alreadyExists`, `invalid`. */
  #claim(sandboxId: string, mac: string, owner: AttachmentOwner): void {
    checkOwner(owner);
    capabilitiesOf(owner, mac);
    const portsOf = ({ podNamespace, podName, hostPorts }: AttachmentOwner) => ({
      pod: `${podNamespace}/${podName}`,
      hostPorts,
    });
    for (const [id, other] of this.#host.attached)
      if (id !== sandboxId) checkClash(portsOf(owner), portsOf(other.owner));
  }

  #open(attached: Attached): Attachment {
    const { sandboxId, mode } = attached.request;
    this.#active.add(sandboxId);
    const ending = new AbortController();
    let hasBegun = attached.guest !== undefined;
    const connecting = async (signal: AbortSignal) => {
      if (ending.signal.aborted)
        throw new PodvmError('failedPrecondition', `Cannot connect ${sandboxId}: its attachment is gone`);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      const stopped = AbortSignal.any([signal, ending.signal]);
      if (stopped.aborted) throw new PodvmError('cancelled', `Cannot connect ${sandboxId}: cancelled`);
    };
    return {
      sandboxId,
      netns: `/run/netns/${sandboxId}`,
      ...(mode === 'none' ? {} : { tap: { name: 'tap0', mac: attached.mac } }),
      assign: (owner) => {
        if (hasBegun)
          throw new PodvmError('failedPrecondition', `Cannot give ${sandboxId} to a pod: it is being connected`);
        this.#claim(sandboxId, attached.mac, owner);
        attached.owner = owner;
      },
      connectAhead: connecting,
      connect: async (signal) => {
        hasBegun = true;
        await connecting(signal);
        return (attached.guest ??= guestNetworkOf(attached));
      },
      [Symbol.asyncDispose]: async () => {
        ending.abort();
        this.#active.delete(sandboxId);
        this.#host.attached.delete(sandboxId);
      },
    };
  }
}

function guestNetworkOf({ request: { mode }, mac, number }: Attached): GuestNetwork {
  const dns = { nameservers: ['10.0.0.1'], searches: [], options: [] };
  if (mode === 'none') return { interfaces: [], routes: [], dns };
  return {
    interfaces: [{ name: 'eth0', mac, mtu: 1500, addresses: [`10.1.0.${number + 5}/24`] }],
    routes: [{ destination: '0.0.0.0/0', gateway: '10.1.0.1' }],
    dns,
  };
}
