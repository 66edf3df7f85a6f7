import { constants } from 'node:os';
import type { MachineExit } from '../driver.ts';
import type { ProcessEnd } from '#host/jail/jailed-process.ts';
import type { VmmEnd } from './failure.ts';

export interface ExitFacts {
  readonly code: ProcessEnd;
  /** `reason` of QEMU's SHUTDOWN event, if one came (QEMU's qapi/run-state.json, ShutdownCause). */
  readonly shutdownReason: string | undefined;
  /** True if this process killed the VMM. */
  readonly killed: boolean;
  /** True if the kernel killed the VMM because its cgroup was out of memory. */
  readonly outOfMemory: boolean;
}

/** Meanings of signals that the kernel or QEMU itself sends. */
const meanings: Readonly<Record<string, string>> = {
  SIGBUS: "file-backed memory could not be read: the template's file is truncated or unreadable, or its disk is full",
  SIGILL: 'it executed an instruction that this processor does not have',
  SIGSYS: 'it made a system call that its jail forbids',
  SIGXCPU: 'it exceeded its limit of processor time',
  SIGXFSZ: 'it exceeded its limit of file size',
};

const isSignal =
  (number: number) =>
  ([, known]: readonly [string, number]) =>
    known === number;

/**
 * Returns the signal of an exit code. bubblewrap reports a child that died of a signal as 128 plus the signal's number.
 */
function signalOf(code: number): string | undefined {
  if (code <= 128 || code > 128 + 64) return undefined;
  const name = Object.entries(constants.signals).find(isSignal(code - 128))?.[0] ?? `signal ${code - 128}`;
  const meaning = meanings[name];
  return meaning === undefined ? name : `${name}: ${meaning}`;
}

/** Describes the end of a VMM whose guest has not run. */
export function endOf(code: ProcessEnd): VmmEnd {
  const { reason } = describeExit({ code, shutdownReason: undefined, killed: false, outOfMemory: false });
  return { outweighsLog: typeof code === 'number' && signalOf(code) !== undefined, reason };
}

/** Orderly ends that QEMU announces, by SHUTDOWN reason. */
const endings = new Map<string, Pick<MachineExit, 'state' | 'reason'>>([
  ['guest-shutdown', { state: 'stopped', reason: 'the guest powered off' }],
  ['host-qmp-quit', { state: 'stopped', reason: 'QEMU was told to quit' }],
  ['guest-reset', { state: 'failed', reason: 'the guest reset itself, as a kernel does after a panic' }],
  ['guest-panic', { state: 'failed', reason: 'the guest kernel panicked' }],
]);

/**
 * Describes in one sentence why a VMM ended. A VMM that crashes after its guest asked for an orderly end counts as
 * crashed: a guest can make QEMU announce anything before.
 */
export function describeExit(facts: ExitFacts): Pick<MachineExit, 'state' | 'reason'> {
  const { code, shutdownReason = '', killed, outOfMemory } = facts;
  const ending = endings.get(shutdownReason);
  if (ending !== undefined && (code === 0 || code === 'unknown' || killed)) return ending;
  if (outOfMemory && !killed) {
    return {
      state: 'failed',
      reason: 'the host killed QEMU: it exceeded the memory limit of its pod and the VMM',
    };
  }
  if (killed) return { state: 'failed', reason: 'QEMU was killed by us' };
  const after = ending === undefined ? '' : `, after this: ${ending.reason}`;
  return { state: 'failed', reason: `${crash(code)}${after}` };
}

function crash(code: ProcessEnd): string {
  if (code === 'unknown') return 'QEMU ended';
  if (typeof code === 'string') return `QEMU's jail was killed by ${code}`;
  const signal = signalOf(code);
  return signal === undefined ? `QEMU ended with code ${code}` : `QEMU was killed by ${signal}`;
}
