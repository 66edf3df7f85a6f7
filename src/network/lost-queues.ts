import { readFileSync } from 'node:fs';
import type { AttachmentRecord } from './attachment-record.ts';
import { filtersFor, type PortRules } from './guard/frame-filter.ts';
import { interfaceName } from './lost-links.ts';
import type { ConnectedPod } from './network.ts';
import { joinWithTap, listFilters, separate, tapName } from './netns.ts';

/** Frames since an interface was made. */
interface Frames {
  readonly received: number;
  readonly sent: number;
}

type Ends = Readonly<Record<'tap' | 'pair', Frames>>;

/** Most checks that are skipped after alarms that were false: a minute. */
const maxSkips = 16;

/**
 * Notices, without a process, that frames arrive at one end of a pod's network and none leaves at the other: the queues
 * were removed, or the filters dropped each of these frames.
 */
export class QueueWatch {
  #before: Ends | undefined;
  #skips = 0;
  #skipped = 0;
  /** True when the output of `tc` cannot be used, because it does not show queues that were just made. */
  isOff = false;

  /** Whether the queues must be looked at, from the text of a `net/dev` file that was read some seconds after the last. */
  isAlarmed(devices: string): boolean {
    const [tap, pair] = [framesOf(devices, tapName), framesOf(devices, interfaceName)];
    const before = this.#before;
    if (tap === undefined || pair === undefined) return false;
    this.#before = { tap, pair };
    if (before === undefined) return false;
    const isStuck = (from: 'tap' | 'pair', to: 'tap' | 'pair') =>
      this.#before !== undefined &&
      this.#before[from].received > before[from].received &&
      this.#before[to].sent === before[to].sent;
    if (!isStuck('tap', 'pair') && !isStuck('pair', 'tap')) return false;
    this.#skipped += 1;
    return this.#skipped > this.#skips;
  }

  /** Records a check of the queues. After a false alarm the next one waits longer. */
  looked(isWell: boolean): void {
    this.#skipped = 0;
    this.#skips = isWell ? Math.min(maxSkips, this.#skips * 2 + 1) : 0;
  }
}

/** The eleven columns after a name: received bytes, frames and six more, then sent bytes and frames. */
function framesOf(devices: string, name: string): Frames | undefined {
  const line = devices.split('\n').find((each) => each.trimStart().startsWith(`${name}:`));
  const columns =
    line
      ?.slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/)
      .map(Number) ?? [];
  const [received, sent] = [columns[1], columns[9]];
  return received === undefined || sent === undefined ? undefined : { received, sent };
}

/** Text of the `net/dev` file of a pod's netns; empty when its process has ended. */
export function devicesOf({ pid }: ConnectedPod): string {
  try {
    return readFileSync(`/proc/${pid}/net/dev`, 'latin1');
  } catch {
    return '';
  }
}

/** Whether both directions are still redirected, and filtered if they were, from what `listOf` gives for the pod. */
export function hasQueues(
  { isFiltered, dropsLoopback }: Pick<AttachmentRecord, 'isFiltered' | 'dropsLoopback'>,
  listed: string,
): boolean {
  const filters = isFiltered === true ? 2 : dropsLoopback === true ? 1 : 0;
  const isLed = [interfaceName, tapName].every((name) => listed.includes(`Egress Redirect to device ${name})`));
  return isLed && listed.split(' direct-action ').length > filters;
}

/** Text about the queues and filters of each sandbox, by its id. */
export async function listOf(sandboxIds: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
  return await listFilters(sandboxIds, [interfaceName, tapName], signal);
}

/** Joins the ends again, with the filters that the pod had; frames are lost meanwhile. */
export async function joinAgain(
  { sandboxId, isFiltered, dropsLoopback }: AttachmentRecord,
  rules: PortRules | undefined,
  signal: AbortSignal,
): Promise<void> {
  const hadFilters = isFiltered === true || dropsLoopback === true;
  const filters = hadFilters ? filtersFor(isFiltered === true ? rules : undefined) : undefined;
  await separate(sandboxId, [interfaceName, tapName], signal);
  await joinWithTap(sandboxId, interfaceName, filters, signal);
}
