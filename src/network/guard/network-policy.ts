import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** A pod's own wish on the built-in network: `metadata`, link-local services beside DNS as well. */
export const networkPolicyAnnotation = 'podvm.dev/network-policy';

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
  const asked = annotations[networkPolicyAnnotation] ?? 'default';
  if (asked !== 'default' && asked !== 'metadata') {
    throw new PodvmError(
      'invalid',
      `Cannot attach a sandbox: ${networkPolicyAnnotation} must be default or metadata, got ${printable(asked, 50)}`,
    );
  }
  if (asked === 'metadata' && policy !== 'asked') {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot attach a sandbox: ${networkPolicyAnnotation} asks for metadata, and this node's networkPolicy is ${policy}`,
      { fix: 'Leave the annotation out, or set networkPolicy to asked on the node.' },
    );
  }
  return asked === 'metadata';
}
