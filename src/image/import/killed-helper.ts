import { PodvmError } from '#base/errors.ts';
import { signalOf, tailOf } from '#host/run.ts';

/**
 * The error for a program, or its jail, that a signal ended, which the kernel or a person has sent. Undefined when it ended
 * by itself. `work`: what it did, for the message: `pull NAME`.
 */
export function killedHelper(work: string, program: string, code: number, stderr: string): PodvmError | undefined {
  const signal = signalOf(code);
  if (signal === undefined) return undefined;
  return new PodvmError('unavailable', `Cannot ${work}: ${program} did not end by itself: ${signal}`, {
    tail: tailOf(stderr),
    fix: "Try again; if it is killed again, see the kernel's log (`dmesg`): memory may have run out.",
  });
}
