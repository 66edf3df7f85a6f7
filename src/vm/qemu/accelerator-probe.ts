import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import { printable } from '#base/guest-text.ts';
import type { Assets } from '#host/assets.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import type { Accelerator } from '../driver.ts';
import { type KvmHost, readKvmHost } from './processor/kvm-host.ts';
import { startQemuMachine } from './qemu-driver.ts';

/**
 * Selects the accelerator by booting the kernel. An open /dev/kvm is not enough: on some hosts KVM answers its ioctls,
 * but the guest dies of an unknown MSR or runs a hundred times slower than under emulation. The trial has a deadline
 * and succeeds when the guest's first program opens the agent's port. The verdict is kept until the host's boot id, its
 * KVM, the guest's kernel or QEMU changes.
 */
const bootSchema = v.variant('outcome', [
  /** The guest came up, in `bootMs`. */
  v.object({ outcome: v.literal('works'), bootMs: v.number() }),
  /** No guest program ran within `deadlineMs`. */
  v.object({ outcome: v.literal('slow'), deadlineMs: v.number() }),
  /** The VMM or the guest died. `detail`: the way in which it ended; `fix`: the action for the operator, if known. */
  v.object({ outcome: v.literal('failed'), detail: v.string(), fix: v.optional(v.string()) }),
  /** The accelerator is missing: /dev/kvm does not exist or cannot be opened. */
  v.object({ outcome: v.literal('absent'), detail: v.string() }),
  /** No trial was needed. */
  v.object({ outcome: v.literal('untried') }),
]);

const verdictSchema = v.object({
  version: v.literal(1),
  /** Boot id, kernel, QEMU and state of KVM for which the verdict holds. */
  key: v.string(),
  accelerator: v.picklist(['kvm', 'tcg']),
  /** Reason for the choice, for display. */
  reason: v.string(),
  kvm: bootSchema,
  tcg: bootSchema,
});

export type BootOutcome = Readonly<v.InferOutput<typeof bootSchema>>;
export type AcceleratorVerdict = Readonly<v.InferOutput<typeof verdictSchema>>;

/** Boots with one accelerator under a deadline in `ms`. A parameter, so that tests of the decision need no machines. */
export type TrialBoot = (accelerator: Accelerator, deadlineMs: number, signal: AbortSignal) => Promise<BootOutcome>;

export interface ProbeRequest {
  readonly assets: Assets;
  /** Directory for the verdict and the trial machines. Made if missing; `uid` must be able to reach it. */
  readonly directory: string;
  /** Unprivileged user of the trial VMMs. */
  readonly uid: number;
  /** Accelerator set in the configuration. Nothing is booted then. */
  readonly forced?: Accelerator | undefined;
}

/** Deadlines of the trial boots, in `ms`. With working KVM this kernel boots in less than a second. */
export const probeDeadlines = { kvmMs: 4_000, tcgMs: 45_000 } as const;

const verdictFile = 'accelerator.json';
const trialMachine = { memoryMiB: 256, vcpus: 1 } as const;

/**
 * Returns the accelerator to use on this host. Errors: `failedPrecondition` if no machine boots at all, `cancelled`.
 */
export async function probeAccelerator(request: ProbeRequest, signal: AbortSignal): Promise<AcceleratorVerdict> {
  const key = await probeKey(request.assets, await readKvmHost());
  const untried = { outcome: 'untried' } as const;
  if (request.forced !== undefined) {
    const reason = `configuration says ${request.forced}`;
    return { version: 1, key, accelerator: request.forced, reason, kvm: untried, tcg: untried };
  }
  await mkdir(request.directory, { recursive: true, mode: 0o711 });
  const path = join(request.directory, verdictFile);
  const kept = await keptVerdict(path, key);
  if (kept !== undefined) return kept;
  const found = await decide(trialBootWith(request), signal);
  const verdict: AcceleratorVerdict = { version: 1, key, ...found };
  await writeFileAtomic(path, `${JSON.stringify(verdict, undefined, 2)}\n`, 0o644);
  return verdict;
}

type Decision = Omit<AcceleratorVerdict, 'version' | 'key'>;

/**
 * Prefers KVM if it boots in time. Otherwise emulation must boot, and KVM gets a second trial limited to emulation's
 * time.
 */
export async function decide(boot: TrialBoot, signal: AbortSignal): Promise<Decision> {
  const kvm = await boot('kvm', probeDeadlines.kvmMs, signal);
  if (kvm.outcome === 'works') {
    return { accelerator: 'kvm', reason: `KVM boots in ${kvm.bootMs} ms`, kvm, tcg: { outcome: 'untried' } };
  }
  const tcg = await boot('tcg', probeDeadlines.tcgMs, signal);
  if (tcg.outcome !== 'works') throw nothingBoots(kvm, tcg);
  if (kvm.outcome === 'slow' && tcg.bootMs > kvm.deadlineMs) {
    // A busy host is slow with both accelerators, so only a comparison shows whether KVM works.
    const second = await boot('kvm', tcg.bootMs, signal);
    if (second.outcome === 'works') {
      return {
        accelerator: 'kvm',
        reason: `KVM boots in ${second.bootMs} ms, emulation in ${tcg.bootMs}`,
        kvm: second,
        tcg,
      };
    }
  }
  return { accelerator: 'tcg', reason: `${describe(kvm)}; emulation boots in ${tcg.bootMs} ms`, kvm, tcg };
}

function describe(kvm: BootOutcome): string {
  switch (kvm.outcome) {
    case 'slow':
      return `KVM answers but did not run a guest within ${kvm.deadlineMs} ms`;
    case 'failed':
      return `KVM opens but its guest died (${kvm.detail})`;
    case 'absent':
      return `no KVM (${kvm.detail})`;
    case 'works':
    case 'untried':
      return `KVM: ${kvm.outcome}`;
  }
}

function nothingBoots(kvm: BootOutcome, tcg: BootOutcome): PodvmError {
  const detail = tcg.outcome === 'failed' ? tcg.detail : `no guest program ran within ${probeDeadlines.tcgMs} ms`;
  return new PodvmError('failedPrecondition', `Cannot boot any machine here: emulation: ${detail}; ${describe(kvm)}`, {
    fix:
      (tcg.outcome === 'failed' ? tcg.fix : undefined) ??
      'Run `podvm setup --upgrade` to reinstall kernel and QEMU. If that does not help, report this message.',
  });
}

/** Boots once by KVM under the deadline of emulation, and changes no stored verdict. Errors: `cancelled`. */
export async function tryKvm(request: ProbeRequest, signal: AbortSignal): Promise<BootOutcome> {
  await mkdir(request.directory, { recursive: true, mode: 0o711 });
  return await trialBootWith(request)('kvm', probeDeadlines.tcgMs, signal);
}

function trialBootWith(request: ProbeRequest): TrialBoot {
  return async (accelerator, deadlineMs, signal) => {
    const absent = accelerator === 'kvm' ? (await readKvmHost()).absent : undefined;
    if (absent !== undefined) return { outcome: 'absent', detail: absent };
    return await trialBoot(request, accelerator, deadlineMs, signal);
  };
}

async function trialBoot(
  { assets, directory, uid }: ProbeRequest,
  accelerator: Accelerator,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<BootOutcome> {
  const deadline = AbortSignal.timeout(deadlineMs);
  const either = AbortSignal.any([signal, deadline]);
  const startedAt = performance.now();
  await using undo = new AsyncDisposableStack();
  const machineDirectory = await mkdtemp(join(directory, 'probe-'));
  undo.defer(() => rm(machineDirectory, { recursive: true, force: true }));
  await chmod(machineDirectory, 0o711);
  try {
    const spec = { id: `probe-${accelerator}`, directory: machineDirectory, uid, ...trialMachine };
    const machine = undo.use(await startQemuMachine({ assets, accelerator }, spec, { kind: 'boot' }, either));
    const life = machine.portOpened.then(() => 'alive' as const);
    const first = (await within(Promise.race([life, machine.exited]), { signal: either })) ?? 'aborted';
    if (first === 'alive') return { outcome: 'works', bootMs: Math.round(performance.now() - startedAt) };
    if (first !== 'aborted')
      return {
        outcome: 'failed',
        detail: [first.reason, ...first.tail.slice(-1).map((line) => printable(line))].join(': '),
      };
  } catch (error) {
    if (!either.aborted) return failed(error);
  }
  if (signal.aborted) throw new PodvmError('cancelled', 'Cannot probe the accelerator: cancelled');
  return { outcome: 'slow', deadlineMs };
}

function failed(error: unknown): BootOutcome {
  const fix = error instanceof PodvmError ? error.fix : undefined;
  return { outcome: 'failed', detail: messageOf(error), ...(fix !== undefined && { fix }) };
}

/** Returns a key that also changes when KVM is loaded, loaded with other settings, or made accessible without a reboot. */
export async function probeKey(
  { kernelVersion, qemuVersion }: Pick<Assets, 'kernelVersion' | 'qemuVersion'>,
  { absent, modules }: Pick<KvmHost, 'absent' | 'modules'>,
): Promise<string> {
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const kvm = createHash('sha256')
    .update(JSON.stringify([absent, [...modules]]))
    .digest('hex')
    .slice(0, 16);
  return `${bootId} ${kernelVersion} ${qemuVersion} ${kvm}`;
}

async function keptVerdict(path: string, key: string): Promise<AcceleratorVerdict | undefined> {
  const text = await readFileIfThere(path);
  if (text === undefined) return undefined;
  try {
    const verdict = v.parse(verdictSchema, JSON.parse(text));
    return verdict.key === key ? verdict : undefined;
  } catch {
    return undefined; // unreadable or from another version: a cache entry, which is made again
  }
}
