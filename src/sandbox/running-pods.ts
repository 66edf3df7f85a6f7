import { join } from 'node:path';
import type { PartVersions } from '#host/assets.ts';
import { isRunning } from '#host/process-identity.ts';
import { readRecord, sandboxDirectories } from './recovery/record.ts';

/** A pod with a running machine, of any process, from its record. */
export interface RunningPod {
  readonly namespace: string;
  readonly name: string;
  /** What its machine is made of; undefined for a podvm that did not record it. */
  readonly parts: PartVersions | undefined;
}

/** Running pods of the state directory. Changes nothing. */
export async function findRunningPods(stateDirectory: string): Promise<readonly RunningPod[]> {
  const pods: RunningPod[] = [];
  const directories = await sandboxDirectories(join(stateDirectory, 'sandboxes')).catch(() => []); // no pod ran yet
  for (const directory of directories) {
    const record = await readRecord(directory).catch(() => undefined); // damaged: reported by a sweep
    if (record?.machine === undefined || record.name === '' || !(await isRunning(record.machine))) continue;
    pods.push({ namespace: record.namespace, name: record.name, parts: record.parts });
  }
  return pods;
}
