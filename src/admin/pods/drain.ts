import type { DrainedPod } from '#api/pods.ts';
import { type RunParts } from './node-pods.ts';

/** Grace period of a kubelet's pods, whose own is known only to the kubelet. */
const defaultGraceSeconds = 30;

/** Ends every pod of this process, including a kubelet's. Sandboxes of a kubelet stay on its list as ended. */
export async function drain(
  { pods, sandboxes }: Pick<RunParts, 'pods' | 'sandboxes'>,
  graceSeconds: number | undefined,
): Promise<readonly DrainedPod[]> {
  const running = pods.list();
  const kept = sandboxes.list().filter(({ spec, status: { state, leftAlone } }) => {
    const isForeign = spec.keptFor !== 'podvm' || leftAlone !== undefined;
    return spec.isKept === true && isForeign && state === 'ready';
  });
  await Promise.all([
    ...running.map((pod) => pod.terminate(graceSeconds)),
    ...kept.map((sandbox) => sandbox.stop((graceSeconds ?? defaultGraceSeconds) * 1000)),
  ]);
  return [...running, ...kept.map(({ spec }) => spec)].map(({ namespace, name }) => ({ namespace, name }));
}
