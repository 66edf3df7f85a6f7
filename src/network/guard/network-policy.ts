import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { podAnnotations } from '#base/pod-annotations.ts';

const { name: annotation, words } = podAnnotations.networkPolicy;

/**
 * What pods of the built-in network reach of the node at most. `asked`: what listens on the node, as with other
 * runtimes, and link-local services where the pod asks. `node`: what listens on the node. `outside`: neither.
 */
export const networkPolicies = ['asked', 'node', 'outside'] as const;
export type NetworkPolicy = (typeof networkPolicies)[number];

/** Errors: `invalid`; `failedPrecondition` where the node does not give what is asked. */
export function asksForMetadata(
  annotations: Readonly<Record<string, string>> = {},
  policy: NetworkPolicy = 'asked',
): boolean {
  const asked = annotations[annotation] ?? words[0];
  if (!words.some((word) => word === asked)) {
    throw new PodvmError(
      'invalid',
      `Cannot attach a sandbox: ${annotation} must be ${words.join(' or ')}, got ${printable(asked, 50)}`,
    );
  }
  if (asked === 'metadata' && policy !== 'asked') {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot attach a sandbox: ${annotation} asks for metadata, and this node's networkPolicy is ${policy}`,
      { fix: 'Leave the annotation out, or set networkPolicy to asked on the node.' },
    );
  }
  return asked === 'metadata';
}
