import { PodvmError } from '#base/errors.ts';
import type { SandboxSpec } from './sandbox.ts';

/** The pod's annotation that lets containers with that capability load modules into their machine's kernel. */
export const kernelModulesAnnotation = 'podvm.dev/kernel-modules';

/** Errors: `invalid`. */
export function kernelModulesOf({
  namespace,
  name,
  annotations,
}: Pick<SandboxSpec, 'namespace' | 'name' | 'annotations'>): 'sealed' | 'open' {
  const value = annotations[kernelModulesAnnotation] ?? 'sealed';
  if (value === 'sealed' || value === 'open') return value;
  const got = JSON.stringify(value).slice(0, 100);
  throw new PodvmError(
    'invalid',
    `Cannot run ${namespace}/${name}: annotation ${kernelModulesAnnotation} must be "sealed" or "open", got ${got}`,
  );
}
