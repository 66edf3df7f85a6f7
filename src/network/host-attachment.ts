import { PodvmError } from '#base/errors.ts';
import type { AttachmentRecord, AttachmentRecords } from './attachment-record.ts';
import { addChain, deleteChain, type ChainCall } from './cni-chain.ts';
import type { CniResult, Conflist, PluginConfig } from './cni-schema.ts';
import { guestNetworkOf } from './guest-network.ts';
import { readInterface } from './ip-command.ts';
import { joinWithTap, makeNetns, netnsPath, removeNetns, setTapMtu, tapName } from './netns.ts';
import type { Attachment, AttachmentOwner, GuestNetwork, HostPort } from './network.ts';
import { readNodeDns } from './node-dns.ts';

export interface AttachmentParts {
  readonly records: AttachmentRecords;
  readonly conflist: (signal: AbortSignal) => Promise<Conflist>;
  /** Whether the chain may depend on the pod's name. */
  readonly asksWhoseItIs: boolean;
  readonly pluginDirs: readonly string[];
  readonly pluginTimeoutMs: number;
  /** Keeps the host ports for this attachment. Errors: `alreadyExists`. */
  readonly claim: (sandboxId: string, hostPorts: readonly HostPort[]) => void;
  /** Called once nothing of the attachment is left. */
  readonly released: (sandboxId: string) => void;
}

const interfaceName = 'eth0';
const defaultTapMtu = 1500;

/** Plugins that have nothing to do but for host ports wait until these are known. */
const isForAll = ({ capabilities }: PluginConfig) => capabilities?.['portMappings'] !== true;

export class HostAttachment implements Attachment {
  readonly sandboxId: string;
  readonly netns: string;
  readonly tap?: { readonly name: string; readonly mac: string };
  readonly #parts: AttachmentParts;
  readonly #ending = new AbortController();
  #record: AttachmentRecord;
  /** What is done before the pod is known. */
  #ahead: Promise<void> | undefined;
  /** Of an attachment that lacks nothing but its host ports. */
  #joined: GuestNetwork | undefined;
  #connected: Promise<GuestNetwork> | undefined;
  #disposed: Promise<void> | undefined;

  /** Of a record, whatever of it exists. */
  constructor(record: AttachmentRecord, parts: AttachmentParts) {
    this.sandboxId = record.sandboxId;
    this.netns = netnsPath(record.sandboxId);
    if (record.mode === 'cni') this.tap = { name: tapName, mac: record.mac };
    this.#record = record;
    this.#parts = parts;
    if (record.guest) this.#connected = Promise.resolve(record.guest);
  }

  static async prepare(record: AttachmentRecord, parts: AttachmentParts, signal: AbortSignal): Promise<HostAttachment> {
    await parts.records.write(record);
    try {
      await makeNetns(record.sandboxId, record.mode === 'cni' ? record.tapOwnerUid : undefined, signal);
    } catch (error) {
      // A netns that was there before us is somebody else's.
      const isOurs = !(error instanceof PodvmError && error.kind === 'alreadyExists');
      if (isOurs) await removeNetns(record.sandboxId, AbortSignal.timeout(10_000));
      await parts.records.remove(record.sandboxId);
      throw error;
    }
    return new HostAttachment(record, parts);
  }

  assign(owner: AttachmentOwner): void {
    if (this.#connected !== undefined) {
      throw new PodvmError('failedPrecondition', `Cannot assign ${this.sandboxId}: its connection has begun`);
    }
    this.#parts.claim(this.sandboxId, owner.hostPorts);
    this.#record = { ...this.#record, ...owner }; // on disk with the chain's first step: until then nothing is the pod's
  }

  connectAhead(signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([signal, this.#ending.signal]);
    return (this.#ahead ??= this.#parts.asksWhoseItIs ? Promise.resolve() : this.#connectAhead(either));
  }

  async #connectAhead(signal: AbortSignal): Promise<void> {
    const conflist = await this.#parts.conflist(signal);
    const added = await this.#add({ ...conflist, plugins: conflist.plugins.filter(isForAll) }, signal);
    this.#joined = await this.#join(added, signal);
  }

  connect(signal: AbortSignal): Promise<GuestNetwork> {
    if (this.#ending.signal.aborted) {
      return Promise.reject(new PodvmError('failedPrecondition', `Cannot connect ${this.sandboxId}: it is disposed`));
    }
    return (this.#connected ??= this.#connect(AbortSignal.any([signal, this.#ending.signal])));
  }

  async #connect(signal: AbortSignal): Promise<GuestNetwork> {
    if (this.#record.mode === 'none') {
      return this.#keep({ interfaces: [], routes: [], dns: { nameservers: [], searches: [], options: [] } });
    }
    if (this.#joined !== undefined) return await this.#keep(await this.#withHostPorts(this.#joined, signal));
    if (this.#record.conflist) {
      throw new PodvmError('failedPrecondition', `Cannot connect ${this.sandboxId}: an earlier attempt was cut short`, {
        fix: 'Remove the pod and create it again.',
      });
    }
    const added = await this.#add(await this.#parts.conflist(signal), signal);
    return this.#keep(await this.#join(added, signal));
  }

  async #add(conflist: Conflist, signal: AbortSignal): Promise<CniResult> {
    await this.#write({ ...this.#record, conflist });
    const added = await addChain(this.#call(conflist), signal);
    this.#record = { ...this.#record, added };
    return added;
  }

  async #withHostPorts(guest: GuestNetwork, signal: AbortSignal): Promise<GuestNetwork> {
    if (this.#record.hostPorts.length === 0) return guest;
    const conflist = await this.#parts.conflist(signal);
    await this.#write({ ...this.#record, conflist }); // whole: DEL is for all of it
    const rest = { ...conflist, plugins: conflist.plugins.filter((plugin) => !isForAll(plugin)) };
    await addChain(this.#call(rest), signal, this.#record.added);
    return guest;
  }

  /** Joins the chain's interface with the tap and reads what the guest must know. */
  async #join(added: CniResult, signal: AbortSignal): Promise<GuestNetwork> {
    const [{ link, routes }, dns] = await Promise.all([
      readInterface(`podvm-${this.sandboxId}`, interfaceName, signal),
      readNodeDns(),
      joinWithTap(this.sandboxId, interfaceName, signal),
    ]);
    if (link.mtu !== defaultTapMtu) await setTapMtu(this.sandboxId, link.mtu, signal);
    return guestNetworkOf(link, routes, added, dns);
  }

  async #keep(guest: GuestNetwork): Promise<GuestNetwork> {
    await this.#write({ ...this.#record, guest });
    return guest;
  }

  async #write(record: AttachmentRecord): Promise<void> {
    await this.#parts.records.write(record);
    this.#record = record;
  }

  #call(conflist: Conflist): ChainCall {
    const { podName, podNamespace, podUid, hostPorts, mac } = this.#record;
    return {
      conflist,
      containerId: this.sandboxId,
      netns: this.netns,
      ifName: interfaceName,
      args: {
        IgnoreUnknown: '1',
        K8S_POD_NAMESPACE: podNamespace,
        K8S_POD_NAME: podName,
        K8S_POD_UID: podUid,
        K8S_POD_INFRA_CONTAINER_ID: this.sandboxId,
      },
      capabilities: {
        mac,
        ...(hostPorts.length === 0
          ? {}
          : { portMappings: hostPorts.map((port) => ({ ...port, protocol: port.protocol.toLowerCase() })) }),
      },
      pluginDirs: this.#parts.pluginDirs,
      timeoutMs: this.#parts.pluginTimeoutMs,
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#dispose().catch((error: unknown) => {
      this.#disposed = undefined; // so that the next call tries again
      throw error;
    });
    return this.#disposed;
  }

  async #dispose(): Promise<void> {
    this.#ending.abort(new PodvmError('cancelled', `Attachment ${this.sandboxId} is being disposed of`));
    await Promise.allSettled([this.#ahead, this.#connected]); // whoever called has the error
    const { conflist, added } = this.#record;
    if (conflist) {
      const boundMs = this.#parts.pluginTimeoutMs * conflist.plugins.length;
      await deleteChain(this.#call(conflist), added, AbortSignal.timeout(boundMs));
    }
    await removeNetns(this.sandboxId, AbortSignal.timeout(10_000));
    await this.#parts.records.remove(this.sandboxId);
    this.#parts.released(this.sandboxId);
  }
}
