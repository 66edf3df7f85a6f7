import { PodvmError } from '#base/errors.ts';
import type { PodFinish, RunningPod } from '#pod/pods.ts';
import type { EndedPod } from '../record/ended-pods.ts';
import type { PodSource, StartOptions } from '../record/ended-record.ts';
import type { ForeignPod } from './foreign-pods.ts';

/** A running pod, with everything needed to run it again. */
export interface LivePod {
  readonly kind: 'live';
  readonly namespace: string;
  readonly name: string;
  readonly pod: RunningPod;
  /** `NodePods.changeData` changes it. */
  source: PodSource;
  /** `NodePods.takeApplied` changes them. */
  options: StartOptions;
  /** Its Secrets were lost with an earlier process, until `NodePods.changeData` gives it others. */
  hasLostSecrets: boolean;
  /**
   * Settles when the pod has ended, its sandbox is gone, and the pod is recorded as ended or forgotten. Never rejects.
   */
  readonly over: Promise<PodFinish>;
  /** Settles when this process leaves the pod to the next one. */
  readonly left: Promise<void>;
}

export type KnownPod = LivePod | ({ readonly kind: 'foreign' } & ForeignPod) | ({ readonly kind: 'ended' } & EndedPod);

/** Waits for the end of a pod. Errors: `unavailable` when this process ends before the pod. */
export async function untilOver({ name, over, left }: LivePod): Promise<PodFinish> {
  const finish = await Promise.race([over, left]);
  if (finish !== undefined) return finish;
  throw leftTo(name);
}

/** The pod of a start of one. */
export function onlyOf(started: readonly LivePod[]): LivePod {
  const [live] = started;
  if (live === undefined) throw new Error('a pod that was started is missing');
  return live;
}

export const leftTo = (name: string) =>
  new PodvmError('unavailable', `Cannot follow ${name} any longer: its node ends, and the pod keeps running`, {
    fix: `Continue with \`podvm attach ${name}\`, which starts a node if none runs.`,
  });
