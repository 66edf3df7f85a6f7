import { messageOf } from '#base/errors.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import {
  findLoss,
  hostLinkOf,
  interfaceName,
  type Loss,
  makePair,
  makePort,
  nameNetns,
  removePair,
} from './lost-links.ts';
import { devicesOf, hasQueues, joinAgain, listOf, QueueWatch } from './lost-queues.ts';
import { portRulesOf } from './attachment-rules.ts';
import { tapName } from './netns.ts';
import type { ConnectedPod } from './network.ts';

/** Most losses that one check restores, one after the other: a name, a pair of links, a port. */
const mostLosses = 4;

const whyLost: Record<Loss, string> = {
  'netns name': 'the name of its network namespace was removed',
  netns: 'its network namespace was replaced by another',
  tap: `${tapName}, the link of its machine, was deleted`,
  pair: `${interfaceName}, its link to the network, was deleted`,
  'bridge port': 'its link was taken from its bridge',
};

export interface MendHow {
  /** True on the built-in network, whose parts are all known. */
  readonly isOurs: boolean;
  /** Output of `tc` about the queues in the netns; undefined: they are checked only when something suggests a loss. */
  readonly listed: string | undefined;
}

/** A loss that could not be restored, and whether trying again is useless. */
export interface Unmended {
  readonly why: string;
  readonly isFinal: boolean;
}

/** The attachment that is repaired. */
export interface RepairedAttachment {
  /** Its record; undefined unless it is connected. */
  readonly connected: () => AttachmentRecord | undefined;
  /** Runs one plugin of its chain again. */
  readonly addAgain: (type: string, signal: AbortSignal) => Promise<void>;
  /** Called with the name of each restored part. */
  readonly onMended: (what: string) => void;
}

/** Restores the parts of a connected attachment that others have removed: names, links, ports and queues. */
export class AttachmentRepair {
  readonly #parts: RepairedAttachment;
  readonly #queues = new QueueWatch();

  constructor(parts: RepairedAttachment) {
    this.#parts = parts;
  }

  /**
   * Restores what others have removed; undefined when nothing is missing afterwards. `signalOf`: called once there is
   * something to do.
   */
  async mend(
    pod: ConnectedPod,
    { isOurs, listed }: MendHow,
    signalOf: () => AbortSignal,
  ): Promise<Unmended | undefined> {
    for (let tries = 0; tries < mostLosses; tries += 1) {
      const record = this.#parts.connected();
      const loss = record && findLoss(record, pod);
      if (record === undefined) return undefined;
      if (loss === undefined) return await this.#mendQueues(record, pod, listed, signalOf);
      const putBack = this.#remedyOf(loss, record, pod, isOurs);
      if (putBack === undefined) return { why: whyLost[loss], isFinal: true };
      try {
        await putBack(signalOf());
      } catch (error) {
        return { why: `${whyLost[loss]}: ${messageOf(error)}`, isFinal: false };
      }
      this.#parts.onMended(loss);
    }
    return undefined;
  }

  async #mendQueues(
    record: AttachmentRecord,
    pod: ConnectedPod,
    listed: string | undefined,
    signalOf: () => AbortSignal,
  ): Promise<Unmended | undefined> {
    if (record.mode === 'none' || this.#queues.isOff) return undefined;
    const isAlarmed = this.#queues.isAlarmed(devicesOf(pod));
    if (!isAlarmed && listed === undefined) return undefined;
    const isListed = listed !== undefined && hasQueues(record, listed);
    const isWell = isListed || (await isJoined(record, signalOf()));
    this.#queues.looked(isWell);
    if (isWell) return undefined;
    const { conflist, added } = record;
    const signal = signalOf();
    try {
      await joinAgain(record, conflist && added && portRulesOf(conflist, added, record), signal);
    } catch (error) {
      return { why: `its ${interfaceName} is not joined with ${tapName}: ${messageOf(error)}`, isFinal: false };
    }
    this.#queues.isOff = !(await isJoined(record, signal));
    this.#parts.onMended('queues');
    return undefined;
  }

  #remedyOf(
    loss: Loss,
    record: AttachmentRecord,
    pod: ConnectedPod,
    isOurs: boolean,
  ): ((signal: AbortSignal) => Promise<void>) | undefined {
    const host = hostLinkOf(record);
    if (loss === 'netns name') return (signal) => nameNetns(pod, signal);
    if (!isOurs || host === undefined) return undefined;
    if (loss === 'bridge port') return (signal) => makePort(host, signal);
    if (loss === 'pair') return (signal) => this.#makePair(record, signal);
    return undefined;
  }

  async #makePair(record: AttachmentRecord, signal: AbortSignal): Promise<void> {
    const host = hostLinkOf(record);
    const { conflist, added } = record;
    if (host === undefined || conflist === undefined || added === undefined) return;
    try {
      await makePair(record, host, signal);
      await joinAgain(record, portRulesOf(conflist, added, record), signal); // the tap still leads to the deleted link
    } catch (error) {
      await removePair(host).catch(() => undefined); // the next check begins again
      throw error;
    }
    await this.#parts.addAgain('bandwidth', signal);
  }
}

/** Checks whether the queues exist, with a process of its own. If they cannot be read, they count as existing. */
async function isJoined(record: AttachmentRecord, signal: AbortSignal): Promise<boolean> {
  const listed = (await listOf([record.sandboxId], signal)).get(record.sandboxId);
  return listed === undefined || hasQueues(record, listed);
}
