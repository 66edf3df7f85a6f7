import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { systemClock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { framesOf } from './attachment-check.ts';
import { AttachmentRecords, sandboxIdSchema, type AttachmentRecord } from './attachment-record.ts';
import { checkClash, checkOwner, checkRequest, type PodPorts } from './attachment-request.ts';
import { collectChain, findPlugins, typesOf } from './cni/cni-chain.ts';
import { readNetwork, requireNetwork, type ConfiguredNetwork } from './cni/cni-config.ts';
import type { Conflist } from './cni/cni-schema.ts';
import {
  bridgeOf,
  builtInBridge,
  defaultNetworkName,
  defaultPlugins,
  ipamDir,
  isDefaultNetwork,
  openDefaultNetwork,
  uncheckedPlugins,
} from './default-network.ts';
import { DroppedFrames } from './dropped-frames.ts';
import { HostAttachment, type AttachmentParts, type Chain } from './host-attachment.ts';
import { LeftAttachments } from './left-attachments.ts';
import { interfaceName } from './lost-links.ts';
import { NetworkMender } from './mend-network.ts';
import { randomMac } from './ip/mac.ts';
import { droppedPackets, droppedPacketsOfPods } from './guard/node-guard.ts';
import { checkTunDevice, netnsPath } from './netns.ts';
import { asksForMetadata, type NetworkPolicy } from './guard/network-policy.ts';
import { releaseAddresses } from './unused-addresses.ts';
import type {
  Attachment,
  AttachmentCheck,
  AttachmentOwner,
  AttachmentRequest,
  BuiltInBridge,
  ConnectedPod,
  Network,
  NetworkReadiness,
} from './network.ts';
import { capabilitiesOf, type Capabilities } from './cni/pod-capabilities.ts';

export interface HostNetworkOptions {
  /** Holds records, addresses and the default network's choice; made if absent. Used by one process at a time. */
  readonly stateDir: string;
  /** CNI configuration, read for each pod; absent: the built-in default network is used. */
  readonly cniConfig?: CniConfigDirectory;
  /** Directories of plugins, in order; default: Debian's and the usual one. */
  readonly cniPluginDirs?: readonly string[];
  /** Timeout of each plugin, in `ms`; default 30,000. */
  readonly pluginTimeoutMs?: number;
  /** The most that pods of the built-in network reach of the node; default `asked`. */
  readonly policy?: NetworkPolicy;
  /** Maximum age of the last check of the default network, in `ms`; default 10,000. */
  readonly lookAgainMs?: number;
  /** Time after which attachments of earlier processes that could not be removed are tried again, in `ms`; default 15,000. */
  readonly collectAgainMs?: number;
  readonly log: Log;
}

export interface CniConfigDirectory {
  /** Directory of `*.conflist` files: /etc/cni/net.d. */
  readonly directory: string;
  /** Behaviour while the directory has no configuration: pods are refused, or use the built-in default network. */
  readonly orElse: 'refuse' | 'builtIn';
}

/** Delay after which the pod is connected and its machine no longer busy with the start, in `ms`. */
const afterPodMs = 1_000;
const refusedTimeoutMs = 10_000;

interface Look {
  isUnderWay: boolean;
  readonly atMs: number;
  readonly counts: ReturnType<typeof droppedPacketsOfPods>;
}

const noLook = (): Look => ({ isUnderWay: false, atMs: -Infinity, counts: Promise.resolve(new Map()) });

export const defaultPluginDirs: readonly string[] = ['/usr/lib/cni', '/opt/cni/bin'];

/** The network of this node: netns and taps by iproute2, the rest by CNI plugins. */
export function createHostNetwork(options: HostNetworkOptions): Network {
  return new HostNetwork(options);
}

class HostNetwork implements Network {
  readonly #options: HostNetworkOptions;
  readonly #frames = new DroppedFrames();
  /** The newest look-up of what the node has refused. */
  #refused: Look = noLook();
  readonly #records: AttachmentRecords;
  /** Attachments of this process, by sandbox id. */
  readonly #active = new Map<string, PodPorts>();
  readonly #attachments = new Map<string, HostAttachment>();
  readonly #mender: NetworkMender;
  readonly #left: LeftAttachments;
  #default: Conflist | undefined;
  #looking: Promise<Conflist> | undefined;
  #lookedMs = 0;
  /** Warnings that were already logged. */
  readonly #warned = new Set<string>();

  constructor(options: HostNetworkOptions) {
    this.#options = options;
    this.#records = new AttachmentRecords(join(options.stateDir, 'attachments'));
    this.#left = new LeftAttachments({
      records: this.#records,
      open: (record) => new HostAttachment(record, this.#parts()),
      free: () => this.#freeAddresses(),
      againMs: options.collectAgainMs ?? 15_000,
      log: options.log,
    });
    this.#mender = new NetworkMender({ log: options.log, clock: systemClock, look: () => this.#lookOnce(true) });
  }

  async prepare(request: AttachmentRequest, signal: AbortSignal): Promise<Attachment> {
    checkRequest(request);
    const mac = randomMac();
    const asked = this.#reserve(request.sandboxId, mac, request);
    try {
      if (await this.#records.read(request.sandboxId)) {
        throw new PodvmError('alreadyExists', `Cannot attach ${request.sandboxId}: an attachment is on record`);
      }
      if (request.mode !== 'none') await checkTunDevice();
      signal.throwIfAborted();
      const attachment = await HostAttachment.prepare(
        recordOf(request, mac),
        asked,
        this.#parts(),
        signal,
        request.netns,
      );
      this.#attachments.set(request.sandboxId, attachment);
      return attachment;
    } catch (error) {
      this.#active.delete(request.sandboxId);
      throw error;
    }
  }

  async adopt(sandboxId: string, _signal: AbortSignal): Promise<Attachment | undefined> {
    const record = v.is(sandboxIdSchema, sandboxId) ? await this.#records.read(sandboxId) : undefined;
    if (!record || !(await isThere(netnsPath(sandboxId)))) return undefined;
    this.#reserve(sandboxId, record.mac, record);
    const attachment = new HostAttachment(record, this.#parts());
    this.#attachments.set(sandboxId, attachment);
    await attachment.holdAgain().catch((error: unknown) => {
      this.#options.log.warn('host ports of a pod are not held', { sandbox: sandboxId, why: messageOf(error) });
    });
    return attachment;
  }

  async collect(keep: ReadonlySet<string>, signal: AbortSignal): Promise<readonly string[]> {
    const left = (await this.#records.list()).filter((id) => !keep.has(id) && !this.#active.has(id));
    const collected = await this.#left.collect(left, signal);
    await this.#freeAddresses();
    await this.#collectUnrecorded(signal);
    return collected;
  }

  /** Frees addresses of the built-in network whose pods are gone without a record. */
  async #freeAddresses(): Promise<void> {
    const known = async () => new Set([...(await this.#records.list()), ...this.#active.keys()]);
    try {
      await releaseAddresses(join(ipamDir(this.#options.stateDir), defaultNetworkName), this.#records, known);
    } catch (error) {
      this.#options.log.warn('unused addresses were not freed', { why: messageOf(error) }); // others are free
    }
  }

  async mend(pods: readonly ConnectedPod[], signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    this.#left.tryAgain(signal);
    if (pods.length === 0) return new Map();
    const found = pods.flatMap((pod) => {
      const attachment = this.#attachments.get(pod.sandboxId);
      const record = attachment?.connected;
      if (attachment === undefined || record === undefined) return [];
      return [{ pod, attachment, record, isOurs: this.#isOurs(record) }];
    });
    return await this.#mender.mend(found, signal);
  }

  /** Whether it belongs to the built-in network. */
  #isOurs({ conflist }: AttachmentRecord): boolean {
    return conflist !== undefined && isDefaultNetwork(conflist, this.#options.stateDir);
  }

  async check(signal: AbortSignal): Promise<readonly AttachmentCheck[]> {
    const checks: AttachmentCheck[] = [];
    for (const sandboxId of await this.#records.list()) {
      const record = await this.#records.read(sandboxId);
      if (record === undefined) continue;
      const isOurs = this.#isOurs(record);
      const unreliable = isOurs ? uncheckedPlugins : new Map<string, string>();
      const check = await new HostAttachment(record, this.#parts()).check(unreliable, signal);
      const wasRemoved = check?.verdict === 'wrong' && (await this.#records.read(sandboxId)) === undefined;
      if (check === undefined || wasRemoved) continue;
      checks.push(isOurs ? { ...check, ...(await framesOf(record, this.#frames)) } : check);
    }
    return checks;
  }

  async dropped(
    sandboxId: string,
    signal: AbortSignal,
    maxAgeMs = 0,
  ): Promise<ReadonlyMap<string, number> | undefined> {
    const record = v.is(sandboxIdSchema, sandboxId) ? await this.#records.read(sandboxId) : undefined;
    const bridge = await bridgeOf(this.#options.stateDir);
    if (record?.dropsLoopback === true)
      return new Map([['loopback', await untilAborted(this.#frames.of(sandboxId, maxAgeMs), signal)]]);
    if (record === undefined || bridge === undefined || !this.#isOurs(record)) return undefined;
    const mac = record.guest?.interfaces[0]?.mac ?? record.mac;
    const [frames, packets] = await Promise.all([
      record.isFiltered === true ? untilAborted(this.#frames.of(sandboxId, maxAgeMs), signal) : undefined,
      this.#refusedOfPods(bridge, maxAgeMs),
    ]);
    const refused = [...packets].map(([reason, ofPods]) => [reason, ofPods.get(mac) ?? 0] as const);
    return new Map([...(frames === undefined ? [] : [['forged', frames] as const]), ...refused]);
  }

  /** Shares one look-up for all pods between simultaneous requests, and those that take an older one. */
  #refusedOfPods(bridge: string, maxAgeMs: number): ReturnType<typeof droppedPacketsOfPods> {
    const { isUnderWay, atMs, counts } = this.#refused;
    if (isUnderWay || performance.now() - atMs <= maxAgeMs) return counts;
    const look = droppedPacketsOfPods(bridge, AbortSignal.timeout(refusedTimeoutMs));
    const refused: Look = { isUnderWay: true, atMs: performance.now(), counts: look };
    this.#refused = refused;
    look.then(
      () => (refused.isUnderWay = false),
      () => (this.#refused = noLook()),
    );
    return look;
  }

  async droppedPackets(signal: AbortSignal): Promise<ReadonlyMap<string, number> | undefined> {
    const bridge = await bridgeOf(this.#options.stateDir);
    return bridge === undefined ? undefined : await droppedPackets(bridge, signal);
  }

  async readiness(): Promise<NetworkReadiness> {
    try {
      const found = await this.#configured();
      await findPlugins(found === undefined ? defaultPlugins : typesOf(found.conflist), this.#pluginDirs);
      return { isReady: true, name: found?.conflist.name ?? defaultNetworkName, path: found?.path };
    } catch (error) {
      return { isReady: false, message: messageOf(error), fix: error instanceof PodvmError ? error.fix : undefined };
    }
  }

  async builtIn(signal: AbortSignal): Promise<BuiltInBridge | undefined> {
    if ((await this.#configured()) !== undefined) return undefined;
    await this.#defaultNetwork();
    signal.throwIfAborted();
    return await builtInBridge(this.#options.stateDir);
  }

  #reserve(sandboxId: string, mac: string, owner: AttachmentOwner): Capabilities {
    if (this.#active.has(sandboxId)) {
      throw new PodvmError('alreadyExists', `Cannot attach ${sandboxId}: it has an attachment`);
    }
    return this.#claim(sandboxId, mac, owner);
  }

  #claim(sandboxId: string, mac: string, owner: AttachmentOwner): Capabilities {
    checkOwner(owner);
    asksForMetadata(owner.annotations, this.#options.policy);
    const asked = capabilitiesOf(owner, mac);
    const { hostPorts } = owner;
    const pod = `${owner.podNamespace}/${owner.podName}`;
    for (const [holder, taken] of this.#active) if (holder !== sandboxId) checkClash({ pod, hostPorts }, taken);
    this.#active.set(sandboxId, { pod, hostPorts });
    return asked;
  }

  #parts(): AttachmentParts {
    return {
      records: this.#records,
      chain: (signal) => this.#chain(signal),
      pluginDirs: this.#pluginDirs,
      pluginTimeoutMs: this.#pluginTimeoutMs,
      onUnprepared: (sandboxId, why) => this.#left.keep(sandboxId, why),
      claim: (sandboxId, mac, owner) => this.#claim(sandboxId, mac, owner),
      onUnfiltered: () => this.#warnOnce('frames of pods are not filtered', 'the kernel has no cls_bpf'),
      onMended: (sandbox, what) => this.#options.log.warn('part of the network restored', { sandbox, what }),
      released: (sandboxId) => {
        this.#active.delete(sandboxId);
        this.#attachments.delete(sandboxId);
        this.#mender.forget(sandboxId);
      },
    };
  }

  #warnOnce(message: string, why: string): void {
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#options.log.warn(message, { why });
  }

  get #pluginDirs(): readonly string[] {
    return this.#options.cniPluginDirs ?? defaultPluginDirs;
  }

  get #pluginTimeoutMs(): number {
    return this.#options.pluginTimeoutMs ?? 30_000;
  }

  /** Returns the configured network; undefined to use the built-in one. Errors: `failedPrecondition`. */
  async #configured(): Promise<ConfiguredNetwork | undefined> {
    const { cniConfig } = this.#options;
    if (cniConfig === undefined) return undefined;
    const { directory, orElse } = cniConfig;
    return orElse === 'refuse' ? requireNetwork(directory) : readNetwork(directory);
  }

  async #chain(signal: AbortSignal): Promise<Chain> {
    const configured = await this.#configured();
    if (configured !== undefined) return { conflist: configured.conflist, isOurs: false };
    const conflist = await this.#defaultNetwork();
    signal.throwIfAborted();
    return { conflist, isOurs: true };
  }

  /**
   * Makes the plugins of a configured network free resources of sandboxes without a record. Only done if the operator
   * has named the directory: otherwise other users of that network would lose their attachments.
   */
  async #collectUnrecorded(signal: AbortSignal): Promise<void> {
    if (this.#options.cniConfig?.orElse !== 'refuse') return;
    const ids = new Set([...(await this.#records.list()), ...this.#active.keys()]);
    const validAttachments = [...ids].map((containerID) => ({ containerID, ifname: interfaceName }));
    try {
      const found = await this.#configured();
      if (found === undefined) return;
      const timeoutMs = this.#pluginTimeoutMs;
      await collectChain(
        { conflist: found.conflist, validAttachments, pluginDirs: this.#pluginDirs, timeoutMs },
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      this.#options.log.warn('unused attachments of the network were not freed', { why: messageOf(error) }); // none is PodVM's
    }
  }

  /**
   * Returns the default network as last checked. It is checked again after this pod has started, since another process
   * may have flushed the node's rules or changed its routes. Checks never overlap: each of them would choose a network.
   */
  async #defaultNetwork(): Promise<Conflist> {
    if (this.#default === undefined) return await this.#lookOnce();
    const nowMs = performance.now();
    if (nowMs - this.#lookedMs > (this.#options.lookAgainMs ?? 10_000)) {
      this.#lookedMs = nowMs;
      setTimeout(() => void this.#lookOnce(), afterPodMs).unref();
    }
    return this.#default;
  }

  async #lookOnce(looksAtRules = false): Promise<Conflist> {
    return await (this.#looking ??= this.#look(looksAtRules));
  }

  /** Takes no signal: the first caller's must not cancel it for those that wait with it. */
  async #look(looksAtRules: boolean): Promise<Conflist> {
    this.#lookedMs = performance.now();
    try {
      await mkdir(this.#options.stateDir, { recursive: true, mode: 0o700 });
      this.#default = await openDefaultNetwork(this.#options.stateDir, AbortSignal.timeout(20_000), {
        opensNode: this.#options.policy !== 'outside',
        looksAtRules,
        onUnguarded: (why) => this.#warnOnce('the node guard is not in place', why),
      });
      return this.#default;
    } catch (error) {
      if (this.#default === undefined) throw error;
      this.#options.log.warn('default network not checked', { why: messageOf(error) });
      return this.#default;
    } finally {
      this.#looking = undefined;
    }
  }
}

function recordOf(request: AttachmentRequest, mac: string): AttachmentRecord {
  const { sandboxId, podName, podNamespace, podUid, mode, hostPorts, tapOwnerUid } = request;
  const reachesMetadata = asksForMetadata(request.annotations);
  return { version: 1, sandboxId, podName, podNamespace, podUid, mode, hostPorts, tapOwnerUid, mac, reachesMetadata };
}
