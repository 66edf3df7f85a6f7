import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connectLink } from '#link/connect-link.ts';
import type { Link } from '#link/link.ts';
import type { Accelerator, Machine } from '#vm/driver.ts';
import type { QemuDriverOptions } from '#vm/qemu/driver-options.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';

export interface RestoreTrial {
  readonly assets: QemuDriverOptions['assets'];
  readonly accelerator: Accelerator;
  /** Directory for the trial's files, which `uid` must be able to reach. Made if missing. */
  readonly directory: string;
  /** Unprivileged user of the trial's VMMs. */
  readonly uid: number;
}

/** A guest's monotonic clock in `ms`, and the host's before it was asked and after it had answered. */
export interface ClockReading {
  readonly guestMs: number;
  readonly beforeMs: number;
  readonly afterMs: number;
}

/** What a guest did that was frozen and then restored, as the machine of each pod is. */
export interface RestoreOutcome {
  /** From the start of the VMM until the restored guest has answered. */
  readonly restoreMs: number;
  readonly frozen: ClockReading;
  /** After the restore, some time apart. */
  readonly restored: readonly [ClockReading, ClockReading];
}

const shape = { memoryMiB: 256, vcpus: 1 } as const;
const bootTimeoutMs = 60_000;
/** Time over which the speed of the restored guest's clock is compared with the host's. */
const watchedMs = 1_000;

/** Boots a guest, freezes it, restores it and reads its clock. Leaves nothing. Errors: those of `MachineDriver` and `connectLink`. */
export async function tryRestore(trial: RestoreTrial, signal: AbortSignal): Promise<RestoreOutcome> {
  const { assets, accelerator, uid } = trial;
  await mkdir(trial.directory, { recursive: true, mode: 0o711 });
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(trial.directory, 'restore-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await chmod(directory, 0o711);
  const driver = createQemuDriver({ assets, accelerator, templates: join(directory, 'templates') });
  const newSpec = async (id: string) => {
    const own = join(directory, id);
    await mkdir(own, { mode: 0o711 });
    return { id, directory: own, uid, ...shape };
  };
  const connected = (machine: Machine, isUp: boolean) =>
    connectLink(
      {
        open: (opening) => machine.connect(opening),
        handshakeTimeoutMs: bootTimeoutMs,
        callTimeoutMs: bootTimeoutMs,
        isUp,
      },
      signal,
    );
  let frozen: ClockReading | undefined;
  const exercise = async (machine: Machine) => {
    await using link = await connected(machine, false);
    frozen = await readClock(link, signal);
  };
  await driver.makeTemplate({ ...(await newSpec('frozen')), from: 'boot' }, exercise, signal);
  if (frozen === undefined) throw new Error('the template was made without its exercise');
  const startedMs = performance.now();
  const machine = undo.use(await driver.start({ ...(await newSpec('restored')), from: 'restore' }, signal));
  const link = undo.use(await connected(machine, true));
  const first = await readClock(link, signal);
  await delay(watchedMs, undefined, { signal });
  return {
    restoreMs: Math.round(first.afterMs - startedMs),
    frozen,
    restored: [first, await readClock(link, signal)],
  };
}

async function readClock(link: Link, signal: AbortSignal): Promise<ClockReading> {
  const beforeMs = performance.now();
  const { uptimeMs } = await link.call('ping', {}, signal);
  return { guestMs: uptimeMs, beforeMs, afterMs: performance.now() };
}

/** Share by which a clock may differ from the host's, and time by which a reading may be off, in `ms`. */
const tolerated = { share: 0.005, ms: 5 } as const;

/**
 * What is wrong with the clock of a restored guest; undefined if nothing. It must continue where it was frozen: time that
 * passed in between, hours for a template, would expire the guest's timers. It must then run as fast as the host's.
 */
export function clockFault({ restoreMs, frozen, restored: [first, second] }: RestoreOutcome): string | undefined {
  const jumpMs = first.guestMs - frozen.guestMs;
  if (jumpMs < -tolerated.ms) return `it went back by ${Math.round(-jumpMs)} ms`;
  // It ran until it was frozen, after its last answer, and again from some moment of the restore.
  const mostMs = restoreMs + freezeMs;
  if (jumpMs > mostMs) return `it went forward by ${Math.round(jumpMs)} ms, of which it can have run ${mostMs}`;
  const guestMs = second.guestMs - first.guestMs;
  const leastMs = (second.beforeMs - first.afterMs) * (1 - tolerated.share) - tolerated.ms;
  const longestMs = (second.afterMs - first.beforeMs) * (1 + tolerated.share) + tolerated.ms;
  if (guestMs >= leastMs && guestMs <= longestMs) return undefined;
  return `it ran ${Math.round(guestMs)} ms while ${Math.round(second.beforeMs - first.afterMs)} to ${Math.round(second.afterMs - first.beforeMs)} ms passed`;
}

/** Longest time in which a guest still runs after its last answer, until it is frozen, in `ms`. */
const freezeMs = 10_000;
