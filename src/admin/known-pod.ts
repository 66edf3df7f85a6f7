import { PodvmError } from '#base/errors.ts';
import type { PodFinish, RunningPod } from '#pod/pods.ts';
import type { EndedPod } from './ended-pods.ts';
import type { PodSource, StartOptions } from './ended-record.ts';
import type { ForeignPod } from './foreign-pods.ts';

/** A pod that runs, and what it takes to run it again. */
export interface LivePod {
  readonly kind: 'live';
  readonly namespace: string;
  readonly name: string;
  readonly pod: RunningPod;
  readonly source: PodSource;
  readonly options: StartOptions;
  /** Its Secrets ended with an earlier process. */
  readonly hasLostSecrets: boolean;
  /** Settles when it has ended, its sandbox is gone, and it is among the ended ones or forgotten. Never rejects. */
  readonly over: Promise<PodFinish>;
  /** Settles when this process leaves it to the next one. */
  readonly left: Promise<void>;
}

export type KnownPod = LivePod | ({ readonly kind: 'foreign' } & ForeignPod) | ({ readonly kind: 'ended' } & EndedPod);

/** Waits for the end of a pod. Errors: `unavailable` when this process ends before and the pod does not. */
export async function untilOver({ name, over, left }: LivePod): Promise<PodFinish> {
  const finish = await Promise.race([over, left]);
  if (finish !== undefined) return finish;
  throw leftTo(name);
}

export const leftTo = (name: string) =>
  new PodvmError('unavailable', `Cannot follow ${name} any longer: its node ends, and the pod runs on`, {
    fix: `Continue with \`podvm attach ${name}\`, which starts a node if none runs.`,
  });
