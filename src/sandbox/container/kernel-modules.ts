import { PodvmError } from '#base/errors.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import { capabilitiesOf } from './capabilities.ts';
import type { SandboxSpec } from '../sandbox.ts';
import type { ContainerSecurity } from '../spec/container-security.ts';

const { name: annotation, words } = podAnnotations.kernelModules;
type KernelModules = (typeof words)[number];

/** Errors: `invalid`. */
export function kernelModulesOf({
  namespace,
  name,
  annotations,
}: Pick<SandboxSpec, 'namespace' | 'name' | 'annotations'>): KernelModules {
  const value = annotations[annotation] ?? words[0];
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  const got = JSON.stringify(value).slice(0, 100);
  throw new PodvmError(
    'invalid',
    `Cannot run ${namespace}/${name}: annotation ${annotation} must be "sealed" or "open", got ${got}`,
    { fix: `Set ${annotation} to sealed or open, or leave it out.` },
  );
}

/** The capabilities of `security`, without CAP_SYS_MODULE unless the pod's machine is open. Errors: `invalid`. */
export function givenCapabilities(
  security: ContainerSecurity,
  pod: Parameters<typeof kernelModulesOf>[0],
): readonly string[] {
  const asked = capabilitiesOf(security);
  return kernelModulesOf(pod) === 'open' ? asked : asked.filter((name) => name !== 'CAP_SYS_MODULE');
}

/** Whether the kernel may ask for modules: with these capabilities a container administers the network. */
export function needsModules(capabilities: readonly string[]): boolean {
  return capabilities.includes('CAP_NET_ADMIN');
}
