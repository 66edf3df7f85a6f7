import { PodvmError } from '#base/errors.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { Events } from './events.ts';

interface PauseParts {
  readonly name: string;
  readonly sandbox: Sandbox | undefined;
  readonly isEnding: boolean;
  readonly events: Events;
}

/** Freezes the machine of a pod, or lets it run again. Returns whether that changed something. Errors: `failedPrecondition`. */
export async function pausePod(isPaused: boolean, { name, sandbox, isEnding, events }: PauseParts): Promise<boolean> {
  const verb = isPaused ? 'pause' : 'unpause';
  if (sandbox === undefined || isEnding) {
    const why = isEnding ? 'is being ended' : 'has no machine yet';
    throw new PodvmError('failedPrecondition', `Cannot ${verb} ${name}: the pod ${why}`, {
      fix: 'See `podvm ps` for its state.',
    });
  }
  if ((sandbox.status.isPaused === true) === isPaused) return false;
  await sandbox.setPaused(isPaused);
  if (isPaused) events.normal('Paused', 'The machine of the pod is frozen');
  else events.normal('Unpaused', 'The machine of the pod runs again');
  return true;
}
