import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { podAnnotations } from '#base/pod-annotations.ts';

const { name: annotation, words } = podAnnotations.networkPolicy;

/**
 * The most that pods of the built-in network reach of the node. `asked`: services that listen on the node, as with other
 * runtimes, and link-local services when the pod asks. `node`: services that listen on the node. `outside`: neither.
 */
export const networkPolicies = ['asked', 'node', 'outside'] as const;
export type NetworkPolicy = (typeof networkPolicies)[number];

/** Errors: `invalid`; `failedPrecondition` when the node's policy does not allow what the pod asks. */
export function asksForMetadata(
  annotations: Readonly<Record<string, string>> = {},
  policy: NetworkPolicy = 'asked',
): boolean {
  const asked = annotations[annotation] ?? words[0];
  if (!words.some((word) => word === asked)) {
    throw new PodvmError(
      'invalid',
      `Cannot attach a sandbox: ${annotation} must be ${words.join(' or ')}, got ${printable(asked, 50)}`,
      { fix: `Set the annotation to ${words.join(' or ')}, or leave it out.` },
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
