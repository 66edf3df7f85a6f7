import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { PartVersions } from '#host/assets.ts';
import { isRunning } from '#host/process/process-identity.ts';
import { recordsIn } from './record.ts';

/** A pod with a running machine, of any process, from its record. */
export interface RunningPod {
  readonly namespace: string;
  readonly name: string;
  /** Versions of the parts that its machine was made from; undefined for a podvm that did not record them. */
  readonly parts: PartVersions | undefined;
}

/** Running pods of the state directory. Changes nothing. */
export async function findRunningPods(stateDirectory: string): Promise<readonly RunningPod[]> {
  const pods: RunningPod[] = [];
  const root = join(stateDirectory, 'sandboxes');
  const isReadable = await access(root, constants.R_OK).then(
    () => true,
    () => false,
  );
  if (!isReadable) return []; // no pod ran yet, or only root may look
  for await (const record of recordsIn(root)) {
    if (record.machine === undefined || record.name === '' || !(await isRunning(record.machine))) continue;
    pods.push({ namespace: record.namespace, name: record.name, parts: record.parts });
  }
  return pods;
}
