import { constants } from 'node:os';
import type { MachineExit } from '../driver.ts';
import type { ProcessEnd } from '#host/jailed-process.ts';
import type { VmmEnd } from './failure.ts';

export interface ExitFacts {
  readonly code: ProcessEnd;
  /** `reason` of QEMU's SHUTDOWN event, if one came (QEMU's qapi/run-state.json, ShutdownCause). */
  readonly shutdownReason: string | undefined;
  /** We ended it. */
  readonly killed: boolean;
  /** The kernel killed it, its cgroup being full. */
  readonly outOfMemory: boolean;
}

/** What a signal means that the kernel or QEMU itself sends. */
const meanings: Readonly<Record<string, string>> = {
  SIGBUS:
    "memory that a file stands behind could not be had: the template's file was cut short or cannot be read, or the disk it lies on is full",
  SIGILL: 'it met an instruction that this processor does not have',
  SIGSYS: 'it made a system call that its jail forbids',
  SIGXCPU: 'it used more processor time than it may',
  SIGXFSZ: 'it wrote a larger file than it may',
};

const isSignal =
  (number: number) =>
  ([, known]: readonly [string, number]) =>
    known === number;

/** bubblewrap reports a child that died of a signal as 128 and the signal's number. */
function signalOf(code: number): string | undefined {
  if (code <= 128 || code > 128 + 64) return undefined;
  const name = Object.entries(constants.signals).find(isSignal(code - 128))?.[0] ?? `signal ${code - 128}`;
  const meaning = meanings[name];
  return meaning === undefined ? name : `${name}: ${meaning}`;
}

/** How a VMM ended that had not come to run its guest. */
export function endOf(code: ProcessEnd): VmmEnd {
  const { reason } = describeExit({ code, shutdownReason: undefined, killed: false, outOfMemory: false });
  return { isSignal: typeof code === 'number' && signalOf(code) !== undefined, reason };
}

/** What QEMU says of the end that it was led to, when it then reached it. */
const endings = new Map<string, Pick<MachineExit, 'state' | 'reason'>>([
  ['guest-shutdown', { state: 'stopped', reason: 'the guest powered off' }],
  ['host-qmp-quit', { state: 'stopped', reason: 'QEMU was told to quit' }],
  ['guest-reset', { state: 'failed', reason: 'the guest reset itself, as a kernel does after a panic' }],
  ['guest-panic', { state: 'failed', reason: 'the guest kernel panicked' }],
]);

/**
 * Says in one sentence why a VMM ended. A VMM that crashes on its way to the end that its guest asked for has crashed:
 * a guest can make it say anything before.
 */
export function describeExit(facts: ExitFacts): Pick<MachineExit, 'state' | 'reason'> {
  const { code, shutdownReason = '', killed, outOfMemory } = facts;
  const ending = endings.get(shutdownReason);
  if (ending !== undefined && (code === 0 || code === 'unknown' || killed)) return ending;
  if (outOfMemory && !killed) {
    return {
      state: 'failed',
      reason: 'the host killed QEMU: it used more than its pod may, with what emulation needs',
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
