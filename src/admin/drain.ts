import type { DrainedPod } from '#api/pods.ts';
import type { RunParts } from './run-session.ts';

/** Of pods whose own grace is not known here, as it is a kubelet's business. */
const defaultGraceSeconds = 30;

/** Ends every pod of this process, whichever client asked for it. Sandboxes of a kubelet stay on its list, as ended. */
export async function drain(
  { pods, sandboxes }: Pick<RunParts, 'pods' | 'sandboxes'>,
  graceSeconds: number | undefined,
): Promise<readonly DrainedPod[]> {
  const running = pods.list();
  const kept = sandboxes.list().filter(({ spec, status }) => spec.isKept === true && status.state === 'ready');
  await Promise.all([
    ...running.map((pod) => pod.terminate(graceSeconds)),
    ...kept.map((sandbox) => sandbox.stop((graceSeconds ?? defaultGraceSeconds) * 1000)),
  ]);
  return [...running, ...kept.map(({ spec }) => spec)].map(({ namespace, name }) => ({ namespace, name }));
}
