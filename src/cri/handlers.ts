import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { SandboxSpec } from '#sandbox/sandbox.ts';

/**
 * Runtime handlers, as named by RuntimeClasses: they determine how a pod's machine is made. `""` is for pods without a
 * RuntimeClass.
 */
export const handlers = {
  '': 'on',
  podvm: 'on',
  /** Restores from a template that only pods of the same namespace use. */
  'podvm-namespace': 'namespace',
  /** Boots the machine: it shares no memory, and no random numbers drawn at boot, with other pods. */
  'podvm-own-boot': 'off',
} as const satisfies Record<string, SandboxSpec['template']>;

export const isHandler = (name: string): boolean => Object.hasOwn(handlers, name);

/** Returns the template choice of a handler. Errors: `invalid`. */
export function templateOfHandler(name: string): SandboxSpec['template'] {
  const found = Object.entries(handlers).find(([handler]) => handler === name);
  if (found !== undefined) return found[1];
  throw new PodvmError(
    'invalid',
    `Cannot use runtime handler ${printable(JSON.stringify(name), 80)}: no such handler`,
    {
      fix: `Use one of ${Object.keys(handlers).filter(Boolean).join(', ')}, or none; see the setting delegate for others.`,
    },
  );
}
