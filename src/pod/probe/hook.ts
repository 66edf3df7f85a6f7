import { PodvmError } from '#base/errors.ts';
import { pause, type Clock } from '#host/clock.ts';
import { httpGet, runCommand, type CheckTarget } from './check.ts';
import type { LifecycleHandler } from '../schema/probe.ts';

/** Runs a postStart or preStop hook. Errors: `failedPrecondition` for a failing command, those of HTTP or exec. */
export async function runHook(
  handler: LifecycleHandler,
  target: CheckTarget,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  if (handler.sleep !== undefined) {
    await pause(clock, handler.sleep.seconds * 1000, signal);
  } else if (handler.exec !== undefined) {
    const result = await runCommand(handler.exec.command, target, signal);
    if (!result.isSuccess) throw new PodvmError('failedPrecondition', `Cannot run the hook: ${result.message}`);
  } else if (handler.httpGet !== undefined) {
    // Any HTTP status counts as success, as for kubelet.
    await httpGet(handler.httpGet, target, signal);
  }
}
