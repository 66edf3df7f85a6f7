import type { MachineExit } from '../driver.ts';
import type { ProcessEnd } from '#host/jailed-process.ts';

export interface ExitFacts {
  readonly code: ProcessEnd;
  /** `reason` of QEMU's SHUTDOWN event, if one came (QEMU's qapi/run-state.json, ShutdownCause). */
  readonly shutdownReason: string | undefined;
  /** We ended it. */
  readonly killed: boolean;
  /** The kernel killed it, its cgroup being full. */
  readonly outOfMemory: boolean;
}

/** bubblewrap reports a child that died of a signal as 128 and the signal's number. */
const signals: Readonly<Record<number, string>> = {
  134: 'SIGABRT',
  137: 'SIGKILL',
  139: 'SIGSEGV',
  143: 'SIGTERM',
  159: 'SIGSYS',
};

/** Says in one sentence why a VMM ended. */
export function describeExit({
  code,
  shutdownReason,
  killed,
  outOfMemory,
}: ExitFacts): Pick<MachineExit, 'state' | 'reason'> {
  switch (shutdownReason) {
    case 'guest-shutdown':
      return { state: 'stopped', reason: 'the guest powered off' };
    case 'host-qmp-quit':
      return { state: 'stopped', reason: 'QEMU was told to quit' };
    case 'guest-reset':
      return { state: 'failed', reason: 'the guest reset itself, as a kernel does after a panic' };
    case 'guest-panic':
      return { state: 'failed', reason: 'the guest kernel panicked' };
    default:
      break;
  }
  if (outOfMemory && !killed) {
    return {
      state: 'failed',
      reason: 'the host killed QEMU: it used more than its pod may, with what emulation needs',
    };
  }
  if (killed) return { state: 'failed', reason: 'QEMU was killed by us' };
  if (typeof code === 'string') {
    return { state: 'failed', reason: code === 'unknown' ? 'QEMU ended' : `QEMU's jail was killed by ${code}` };
  }
  const signal = signals[code];
  return {
    state: 'failed',
    reason: signal === undefined ? `QEMU ended with code ${code}` : `QEMU was killed by ${signal}`,
  };
}
