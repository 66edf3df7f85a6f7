import { messageOf } from '#base/errors.ts';
import { type Clock, pause } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { portionsOf } from '#host/portions.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import type { HostAttachment } from './host-attachment.ts';
import { hostLinkOf, isLinkThere } from './lost-links.ts';
import { listOf } from './lost-queues.ts';
import { findLostRules } from './lost-rules.ts';
import type { ConnectedPod } from './network.ts';

/** A pod that runs, with its attachment of this process. */
export interface MendedPod {
  readonly pod: ConnectedPod;
  readonly attachment: Pick<HostAttachment, 'sandboxId' | 'mend' | 'addAgain'>;
  readonly record: AttachmentRecord;
  /** Whether it belongs to the built-in network. */
  readonly isOurs: boolean;
}

interface MenderOptions {
  readonly log: Log;
  readonly clock: Clock;
  /** Looks at the built-in network and the node's rules. */
  readonly look: () => Promise<unknown>;
}

/** Interval at which the node's rules are checked for running pods, which takes processes. */
const rulesMs = 7_000;
/** Most pods whose queues one such check lists: each takes 2.5 ms of a processor. */
const maxListed = 200;
/**
 * Most portions in which pods are checked, and the time between two, in `ms`. To check one takes 0.2 ms, for which everything
 * else of this process waits.
 */
const maxPortions = 50;
const gapMs = 20;

/** Restores what other programs have removed of the network of running pods (`Network.mend`). */
export class NetworkMender {
  readonly #options: MenderOptions;
  /** When the node's rules were last checked. */
  #rulesMs = -Infinity;
  /** Index of the first pod whose queues the next check lists; used when there are more than `maxListed` pods. */
  #turn = 0;
  /** Pods that the last check could not restore. */
  readonly #unmended = new Set<string>();

  constructor(options: MenderOptions) {
    this.#options = options;
  }

  forget(sandboxId: string): void {
    this.#unmended.delete(sandboxId);
  }

  async mend(found: readonly MendedPod[], signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const bridges = new Set(found.flatMap(({ record, isOurs }) => (isOurs ? (hostLinkOf(record)?.bridge ?? []) : [])));
    const nowMs = this.#options.clock.monotonicMs();
    const looksAtRules = nowMs - this.#rulesMs >= rulesMs;
    if (looksAtRules) this.#rulesMs = nowMs;
    if ((looksAtRules && bridges.size > 0) || ![...bridges].every(isLinkThere)) {
      await this.#options.look().catch((error: unknown) => {
        this.#options.log.warn('default network not checked', { why: messageOf(error) });
      });
    }
    const broken = new Map<string, string>();
    const listed = looksAtRules ? await this.#listQueues(found, signal) : undefined;
    for (const [at, portion] of portionsOf(found, maxPortions).entries()) {
      if (at > 0) await pause(this.#options.clock, gapMs, signal);
      signal.throwIfAborted();
      for (const each of portion) {
        const why = await this.#mendPod(each, listed?.get(each.pod.sandboxId), signal);
        if (why !== undefined) broken.set(each.pod.sandboxId, why);
      }
    }
    if (looksAtRules) await this.#mendRules(found, signal);
    return broken;
  }

  /** Returns why the pod is disconnected for good. */
  async #mendPod({ pod, attachment, isOurs }: MendedPod, listed: string | undefined, signal: AbortSignal) {
    try {
      const unmended = await attachment.mend(pod, { isOurs, listed }, signal);
      if (unmended === undefined) this.#unmended.delete(pod.sandboxId);
      else if (unmended.isFinal || this.#unmended.has(pod.sandboxId)) return unmended.why;
      else this.#warnOfMending(pod.sandboxId, unmended.why);
    } catch (error) {
      this.#options.log.warn('network of a pod not checked', { sandbox: pod.sandboxId, why: messageOf(error) });
    }
    return undefined;
  }

  /** Output of `tc` about queues, by sandbox id, of at most `maxListed` pods: with more, checks take turns. */
  async #listQueues(found: readonly MendedPod[], signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const joined = found.flatMap(({ record: { mode, sandboxId } }) => (mode === 'none' ? [] : [sandboxId]));
    if (joined.length === 0) return new Map();
    const start = joined.length > maxListed ? this.#turn % joined.length : 0;
    this.#turn = start + maxListed;
    const turn = [...joined.slice(start), ...joined.slice(0, start)].slice(0, maxListed);
    try {
      return await listOf(turn, signal);
    } catch (error) {
      this.#options.log.warn('queues of pods not checked', { why: messageOf(error) });
      return new Map();
    }
  }

  #warnOfMending(sandbox: string, why: string): void {
    this.#unmended.add(sandbox);
    this.#options.log.warn('part of the network not restored', { sandbox, why });
  }

  /** Lets plugins of any network make missing rules again. */
  async #mendRules(found: readonly MendedPod[], signal: AbortSignal): Promise<void> {
    const records = found.map(({ record }) => record);
    for (const [type, sandboxIds] of await findLostRules(records, signal)) {
      const lost = found.filter(({ record }) => sandboxIds.has(record.sandboxId));
      for (const { attachment } of lost) {
        await attachment.addAgain(type, signal).catch((error: unknown) => {
          this.#options.log.warn('rules of a pod not restored', {
            sandbox: attachment.sandboxId,
            plugin: type,
            why: messageOf(error),
          });
        });
      }
    }
  }
}
