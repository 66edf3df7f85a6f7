import { PodvmError } from '#base/errors.ts';
import { signalOf, tailOf } from '#host/process/run.ts';

/**
 * Returns the error for a program, or its jail, that was killed by a signal of the kernel or an operator; undefined
 * when it was not killed. `work` names its task, for the message: `pull NAME`.
 */
export function killedHelper(work: string, program: string, code: number, stderr: string): PodvmError | undefined {
  const signal = signalOf(code);
  if (signal === undefined) return undefined;
  return new PodvmError('unavailable', `Cannot ${work}: ${program} was killed: ${signal}`, {
    tail: tailOf(stderr),
    fix: "Try again; if it is killed again, see the kernel's log (`dmesg`): memory may have run out.",
  });
}
