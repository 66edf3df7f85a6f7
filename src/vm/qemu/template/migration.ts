import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { poll } from '#host/wait.ts';
import { printable } from '#base/guest-text.ts';
import type { QmpClient } from '../qmp/qmp.ts';
import { inside } from '../jail/jail.ts';

/**
 * Freezes and restores with QEMU's migration (docs/devel/migration). With `x-ignore-shared` the memory stays in its
 * file, and only the devices' state, some 100 KB, is written or read.
 */
const progressSchema = v.object({ status: v.optional(v.string(), 'none'), 'error-desc': v.optional(v.string()) });
const pollMs = 3;
const deadlineMs = 60_000;

/** Stops the guest and writes its devices' state. The memory file is complete once the VMM has ended. */
export async function freeze(qmp: QmpClient, signal: AbortSignal): Promise<void> {
  await qmp.execute('stop', {}, signal);
  await leaveMemoryInItsFile(qmp, signal);
  await qmp.execute('migrate', { uri: `file:${inside.state}` }, signal);
  await finished(qmp, 'freeze', signal);
}

/** Reads the devices' state of the template. `cont` resumes the guest. */
export async function restore(qmp: QmpClient, signal: AbortSignal): Promise<void> {
  await leaveMemoryInItsFile(qmp, signal);
  await qmp.execute('migrate-incoming', { uri: `file:${inside.templateState}` }, signal);
  await finished(qmp, 'restore', signal);
}

async function leaveMemoryInItsFile(qmp: QmpClient, signal: AbortSignal): Promise<void> {
  const capabilities = [{ capability: 'x-ignore-shared', state: true }];
  await qmp.execute('migrate-set-capabilities', { capabilities }, signal);
}

async function finished(qmp: QmpClient, verb: string, signal: AbortSignal): Promise<void> {
  using deadline = openDeadline(deadlineMs, signal);
  const look = async () => {
    const progress = v.parse(progressSchema, await qmp.execute('query-migrate', {}, deadline.signal)); // tells of an abort
    if (progress.status === 'failed' || progress.status === 'cancelled') {
      const why = progress['error-desc'] ?? progress.status;
      throw new PodvmError('internal', `Cannot ${verb} the machine: ${printable(why)}`);
    }
    return progress.status === 'completed' ? true : undefined;
  };
  await poll(look, { everyMs: pollMs });
}
