import { isDeepStrictEqual } from 'node:util';
import { PodvmError } from '#base/errors.ts';
import { checkAttachment } from './attachment-check.ts';
import type { AttachmentRecord, AttachmentRecords } from './attachment-record.ts';
import { AttachmentRepair, type MendHow, type Unmended } from './attachment-repair.ts';
import { addChain, deleteChain, type ChainCall } from './cni/cni-chain.ts';
import type { CniResult, Conflist } from './cni/cni-schema.ts';
import { filtersFor, frameFilter, type PortRules } from './guard/frame-filter.ts';
import { portRulesOf } from './attachment-rules.ts';
import { guestNetworkOf } from './guest-network.ts';
import { interfaceName } from './lost-links.ts';
import { type HeldPorts, holdPorts } from './ports/held-ports.ts';
import { bareAddress } from './ip/bare-address.ts';
import { readInterface } from './ip/ip-command.ts';
import {
  enterNetns,
  joinWithTap,
  leaveNetns,
  makeNetns,
  moveToNetns,
  netnsPath,
  refilterTap,
  removeNetns,
  separate,
  setTapMtu,
  tapName,
} from './netns.ts';
import { asksForMetadata } from './guard/network-policy.ts';
import type { Attachment, AttachmentCheck, AttachmentOwner, ConnectedPod, GuestNetwork } from './network.ts';
import { readNodeDns } from './node-dns.ts';
import { isLoopback } from './port-address.ts';
import { type Capabilities, declaredOf, hasWork, withoutLoopback } from './cni/pod-capabilities.ts';

/** The chain that connects a new pod. */
export interface Chain {
  readonly conflist: Conflist;
  /** Built-in: does not depend on the pod, and can be run in parts. */
  readonly isOurs: boolean;
}

export interface AttachmentParts {
  readonly records: AttachmentRecords;
  readonly chain: (signal: AbortSignal) => Promise<Chain>;
  readonly pluginDirs: readonly string[];
  readonly pluginTimeoutMs: number;
  /** Reserves the host ports for this attachment and returns its capabilities. Errors: `alreadyExists`, `invalid`. */
  readonly claim: (sandboxId: string, mac: string, owner: AttachmentOwner) => Capabilities;
  /** Called with the reason when an attachment that cannot be prepared cannot be undone either; it stays on record. */
  readonly onUnprepared: (sandboxId: string, why: unknown) => void;
  /** Called when the node's kernel cannot filter the frames of a guest. */
  readonly onUnfiltered: () => void;
  /** Called with the name of each restored part. */
  readonly onMended: (sandboxId: string, what: string) => void;
  /** Called once nothing of the attachment is left. */
  readonly released: (sandboxId: string) => void;
}

const defaultTapMtu = 1500;

interface Joined {
  readonly guest: GuestNetwork;
  /** The whole chain that was begun. */
  readonly chain: Chain;
  /** Capabilities that were known when the chain ran. */
  readonly asked: Capabilities;
  /** Undefined when nothing is filtered. */
  readonly rules: PortRules | undefined;
}

export class HostAttachment implements Attachment {
  readonly sandboxId: string;
  readonly netns: string;
  readonly tap?: { readonly name: string; readonly mac: string };
  readonly #parts: AttachmentParts;
  readonly #ending = new AbortController();
  #record: AttachmentRecord;
  /** Capabilities that are passed to plugins which declare them. */
  #asked: Capabilities;
  /** The pod's host ports, once the pod is known. */
  #held: Promise<HeldPorts | undefined> = Promise.resolve(undefined);
  #tapMtu = defaultTapMtu;
  /** Path of the pod's netns, which another program has made after this was prepared. */
  #movesTo: string | undefined;
  /** An early look at the chain while nothing else is to do: the built-in one takes 50 ms. */
  #looked: Promise<unknown> | undefined;
  /** The work done before the pod is known. */
  #ahead: Promise<void> | undefined;
  /** Set when the attachment lacks only what its pod asks for. */
  #joined: Joined | undefined;
  #connected: Promise<GuestNetwork> | undefined;
  #disposed: Promise<void> | undefined;
  readonly #repair: AttachmentRepair;
  #mending: Promise<Unmended | undefined> = Promise.resolve(undefined);

  /** Uses a record; parts of the attachment may be missing. */
  constructor(record: AttachmentRecord, parts: AttachmentParts, asked: Capabilities = record.capabilities ?? {}) {
    this.sandboxId = record.sandboxId;
    this.netns = netnsPath(record.sandboxId);
    if (record.mode !== 'none') this.tap = { name: tapName, mac: record.mac };
    this.#record = record;
    this.#asked = asked;
    this.#parts = parts;
    this.#repair = new AttachmentRepair({
      connected: () => this.connected,
      addAgain: (type, signal) => this.addAgain(type, signal),
      onMended: (what) => parts.onMended(this.sandboxId, what),
    });
    if (record.guest) this.#connected = Promise.resolve(record.guest);
  }

  static async prepare(
    record: AttachmentRecord,
    asked: Capabilities,
    parts: AttachmentParts,
    signal: AbortSignal,
    netns?: string,
  ): Promise<HostAttachment> {
    await parts.records.write(record);
    const looked = record.mode === 'cni' ? parts.chain(signal) : Promise.resolve(undefined);
    looked.catch(() => undefined); // `connect` reports it
    try {
      if (netns === undefined) {
        await makeNetns(record.sandboxId, record.mode === 'cni' ? record.tapOwnerUid : undefined, signal);
      } else await enterNetns(record.sandboxId, netns, record.tapOwnerUid, signal);
    } catch (error) {
      // Does not remove a netns that existed before: it belongs to another process.
      const isOurs = !(error instanceof PodvmError && error.kind === 'alreadyExists');
      try {
        if (isOurs) await removeNetnsOf(record, AbortSignal.timeout(10_000));
        await parts.records.remove(record.sandboxId);
      } catch (left) {
        parts.onUnprepared(record.sandboxId, left);
      }
      await Promise.allSettled([looked]);
      throw error;
    }
    const attachment = new HostAttachment(record, parts, asked);
    attachment.#looked = looked;
    attachment.#hold();
    return attachment;
  }

  assign(owner: AttachmentOwner): void {
    if (this.#connected !== undefined) {
      throw new PodvmError('failedPrecondition', `Cannot assign ${this.sandboxId}: its connection has begun`);
    }
    this.#asked = this.#parts.claim(this.sandboxId, this.#record.mac, owner);
    const { podName, podNamespace, podUid, hostPorts, annotations, netns } = owner;
    if (netns !== undefined && this.#record.mode === 'cni') this.#movesTo = netns;
    const reachesMetadata = asksForMetadata(annotations);
    // Written to disk with the chain's first step: until then nothing belongs to the pod.
    this.#record = { ...this.#record, podName, podNamespace, podUid, hostPorts, reachesMetadata };
    this.#hold();
  }

  /** Begins to hold the host ports; `connect` waits for it and reports its errors. */
  #hold(): void {
    const { sandboxId, podName, podNamespace, hostPorts } = this.#record;
    if (hostPorts.length === 0) return;
    this.#held = holdPorts(hostPorts, { sandboxId, pod: `${podNamespace}/${podName}` }, this.#ending.signal);
    this.#held.catch(() => undefined);
  }

  /** Holds the ports of an attachment that an earlier process connected. Errors: `alreadyExists`. */
  async holdAgain(): Promise<void> {
    this.#hold();
    (await this.#held)?.forward(addressesOf(this.#record.guest));
  }

  connectAhead(signal: AbortSignal): Promise<void> {
    return (this.#ahead ??= this.#connectAhead(AbortSignal.any([signal, this.#ending.signal])));
  }

  async #connectAhead(signal: AbortSignal): Promise<void> {
    const chain = await this.#parts.chain(signal);
    if (!chain.isOurs) return;
    const asked = this.#askedOf(chain);
    const added = await this.#add(neededOf(chain, asked), asked, signal);
    this.#joined = { ...(await this.#join(chain, added, signal)), chain, asked };
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
    if (this.#movesTo !== undefined) await this.#move(this.#movesTo, signal);
    if (this.#record.mode === 'given') return await this.#connectGiven(signal);
    const [chain, held] = await Promise.all([this.#parts.chain(signal), this.#held]);
    const guest = await this.#connectTo(chain, signal);
    held?.forward(addressesOf(guest));
    return guest;
  }

  /** Leaves the network of the node for a netns that another program has made. Errors: `failedPrecondition`. */
  async #move(path: string, signal: AbortSignal): Promise<void> {
    if (this.#joined !== undefined) await this.#leave(signal);
    await this.#write({ ...this.#record, mode: 'given', isMoved: true });
    await moveToNetns(this.sandboxId, path, signal);
  }

  /** Joins the interface that another program has made. Errors: `failedPrecondition` when there is none. */
  async #connectGiven(signal: AbortSignal): Promise<GuestNetwork> {
    try {
      const unknown: CniResult = { interfaces: [], ips: [] }; // the result of the other program's chain is not known
      return await this.#keep((await this.#join(undefined, unknown, signal)).guest);
    } catch (cause) {
      signal.throwIfAborted();
      throw new PodvmError(
        'failedPrecondition',
        `Cannot connect ${this.sandboxId}: its network namespace has no usable ${interfaceName}`,
        { cause, fix: "Let the node's CNI configuration name the pod's interface eth0." },
      );
    }
  }

  async #connectTo(chain: Chain, signal: AbortSignal): Promise<GuestNetwork> {
    if (this.#joined !== undefined) {
      if (isDeepStrictEqual(this.#joined.chain, chain))
        return await this.#keep(await this.#finish(this.#joined, signal));
      await this.#leave(signal); // the network is no longer configured on the node
    }
    if (this.#record.conflist) {
      throw new PodvmError('failedPrecondition', `Cannot connect ${this.sandboxId}: an earlier attempt was cut short`, {
        fix: 'Remove the pod and create it again.',
      });
    }
    const asked = this.#askedOf(chain);
    const added = await this.#add(neededOf(chain, asked), asked, signal);
    return this.#keep((await this.#join(chain, added, signal)).guest);
  }

  /** Returns the capabilities for a chain; a configured one gets all, as with other runtimes. Errors: `unsupported`. */
  #askedOf({ isOurs }: Chain): Capabilities {
    if (!isOurs) return this.#asked;
    const { hostPorts } = this.#record;
    const lost = hostPorts.find(({ protocol, hostIP }) => protocol === 'SCTP' && isLoopback(hostIP));
    if (lost === undefined) return withoutLoopback(this.#asked, hostPorts);
    throw new PodvmError(
      'unsupported',
      `Cannot attach ${this.sandboxId}: host port ${lost.hostPort}/SCTP cannot be on ${lost.hostIP}, a loopback address`,
      { fix: 'Leave its hostIP out, or make it an address of the node.' },
    );
  }

  async #add(conflist: Conflist, asked: Capabilities, signal: AbortSignal): Promise<CniResult> {
    const capabilities = declaredOf(asked, conflist);
    await this.#write({ ...this.#record, conflist, capabilities });
    const added = await addChain(this.#call(conflist), signal);
    this.#record = { ...this.#record, added };
    return added;
  }

  /** Runs the plugins that were left out while no pod had asked for them. */
  async #finish({ guest, chain, asked, rules }: Joined, signal: AbortSignal): Promise<GuestNetwork> {
    if (this.#record.reachesMetadata === true && rules !== undefined)
      await refilterTap(this.sandboxId, frameFilter({ ...rules, reachesMetadata: true }), signal);
    const askedNow = this.#askedOf(chain);
    const conflist = neededOf(chain, askedNow);
    const rest = { ...conflist, plugins: conflist.plugins.filter((plugin) => !hasWork(plugin, asked)) };
    if (rest.plugins.length === 0) return guest;
    const capabilities = declaredOf(askedNow, conflist);
    await this.#write({ ...this.#record, conflist, capabilities }); // the whole chain, since DEL needs it
    this.#record = { ...this.#record, added: await addChain(this.#call(rest), signal, this.#record.added) };
    return guest;
  }

  /** Returns to the prepared state. */
  async #leave(signal: AbortSignal): Promise<void> {
    const { conflist, added, isFiltered: _, dropsLoopback: __, ...record } = this.#record;
    if (conflist) await deleteChain(this.#call(conflist), added, signal);
    await separate(this.sandboxId, [tapName], signal); // the interface's half goes with the interface
    this.#joined = undefined;
    await this.#write(record);
  }

  /**
   * Joins the chain's interface with the tap and reads the guest's configuration. On the built-in network, frames are
   * filtered by the addresses that the chain assigned.
   */
  async #join(
    chain: Chain | undefined,
    added: CniResult,
    signal: AbortSignal,
  ): Promise<Pick<Joined, 'guest' | 'rules'>> {
    const asked = chain?.isOurs === true ? portRulesOf(chain.conflist, added, this.#record) : undefined;
    const [{ link, routes }, dns, isFiltered] = await Promise.all([
      readInterface(`podvm-${this.sandboxId}`, interfaceName, signal),
      readNodeDns(),
      joinWithTap(this.sandboxId, interfaceName, filtersFor(asked), signal),
    ]);
    if (link.mtu !== this.#tapMtu) await setTapMtu(this.sandboxId, link.mtu, signal);
    this.#tapMtu = link.mtu;
    if (!isFiltered) this.#parts.onUnfiltered();
    this.#record = { ...this.#record, ...(asked === undefined ? { dropsLoopback: isFiltered } : { isFiltered }) };
    return { guest: guestNetworkOf(link, routes, added, dns), rules: isFiltered ? asked : undefined };
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
    const { podName, podNamespace, podUid, capabilities = {} } = this.#record;
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
      capabilities,
      pluginDirs: this.#parts.pluginDirs,
      timeoutMs: this.#parts.pluginTimeoutMs,
    };
  }

  /** See `checkAttachment()`. */
  check(unreliable: ReadonlyMap<string, string>, signal: AbortSignal): Promise<AttachmentCheck | undefined> {
    return checkAttachment(this.#record, (conflist) => this.#call(conflist), unreliable, signal);
  }

  /** Its record; undefined unless it is connected. */
  get connected(): AttachmentRecord | undefined {
    return this.#record.guest === undefined || this.#ending.signal.aborted ? undefined : this.#record;
  }

  /** Restores what others have removed; undefined when nothing is missing afterwards. */
  mend(pod: ConnectedPod, how: MendHow, signal: AbortSignal): Promise<Unmended | undefined> {
    this.#mending = this.#repair.mend(pod, how, () => AbortSignal.any([signal, this.#ending.signal]));
    return this.#mending;
  }

  /** Runs one plugin of the chain again, after its rules were removed. */
  async addAgain(type: string, signal: AbortSignal): Promise<void> {
    const { conflist, added } = this.#record;
    const plugins = conflist?.plugins.filter((plugin) => plugin.type === type) ?? [];
    if (conflist === undefined || added === undefined || plugins.length === 0) return;
    const call = this.#call({ ...conflist, plugins });
    if (type !== 'portmap') await deleteChain(call, added, signal); // portmap deletes its old rules itself
    await addChain(call, signal, added);
    this.#parts.onMended(this.sandboxId, type);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#dispose().catch((error: unknown) => {
      this.#disposed = undefined; // the next call tries again
      throw error;
    });
    return this.#disposed;
  }

  async #dispose(): Promise<void> {
    this.#ending.abort(new PodvmError('cancelled', `Attachment ${this.sandboxId} is being disposed of`));
    // Their callers get the errors.
    await Promise.allSettled([this.#looked, this.#ahead, this.#connected, this.#mending]);
    const [held] = await Promise.allSettled([this.#held]);
    if (held.status === 'fulfilled') await held.value?.[Symbol.asyncDispose]();
    const { conflist, added } = this.#record;
    if (conflist) {
      const boundMs = this.#parts.pluginTimeoutMs * conflist.plugins.length;
      await deleteChain(this.#call(conflist), added, AbortSignal.timeout(boundMs));
    }
    await removeNetnsOf(this.#record, AbortSignal.timeout(10_000));
    await this.#parts.records.remove(this.sandboxId);
    this.#parts.released(this.sandboxId);
  }
}

/** Removes what `prepare` and `connect` made in the netns, and the netns itself if it is ours. */
async function removeNetnsOf({ sandboxId, mode }: AttachmentRecord, signal: AbortSignal): Promise<void> {
  if (mode === 'given') await leaveNetns(sandboxId, interfaceName, signal);
  else await removeNetns(sandboxId, signal);
}

/** Addresses without prefix lengths. */
const addressesOf = (guest: GuestNetwork | undefined): readonly string[] =>
  (guest?.interfaces ?? []).flatMap(({ addresses }) => addresses.map(bareAddress));

/** The built-in chain without plugins that have nothing to do; a configured one whole. */
function neededOf({ conflist, isOurs }: Chain, asked: Capabilities): Conflist {
  if (!isOurs) return conflist;
  return { ...conflist, plugins: conflist.plugins.filter((plugin) => hasWork(plugin, asked)) };
}
