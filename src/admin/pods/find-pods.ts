import type { Asked } from '../routes.ts';
import type { KnownPod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';
import type { ReachedPod } from './reached-pod.ts';

/** Finds the pod that a path names. Errors: those of `NodePods.find`. */
export const findKnown = (pods: NodePods, asked: Asked): KnownPod => pods.find(...nameOf(asked));

/** Finds the running pod that a path names. `verb` completes `Cannot`. Errors: those of `NodePods.reach`. */
export const findReached = (pods: NodePods, asked: Asked, verb: string): ReachedPod =>
  pods.reach(...nameOf(asked), verb);

/** Returns the namespace and name in a path. The namespace is undefined for `_`, which stands for any. */
export function nameOf({ segment }: Asked): [namespace: string | undefined, name: string] {
  const namespace = segment('namespace');
  return [namespace === '_' ? undefined : namespace, segment('name')];
}
