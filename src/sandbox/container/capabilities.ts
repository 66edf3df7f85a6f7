import { PodvmError } from '#base/errors.ts';
import type { ContainerSecurity } from '../spec/container-security.ts';

/** The capabilities that containerd and docker give a container by default. */
export const defaultCapabilities: readonly string[] = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];

/** Every capability of the guest's kernel (capabilities(7), 6.12). */
export const allCapabilities: readonly string[] = [
  ...defaultCapabilities,
  'CAP_AUDIT_CONTROL',
  'CAP_AUDIT_READ',
  'CAP_BLOCK_SUSPEND',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
  'CAP_DAC_READ_SEARCH',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_LEASE',
  'CAP_LINUX_IMMUTABLE',
  'CAP_MAC_ADMIN',
  'CAP_MAC_OVERRIDE',
  'CAP_NET_ADMIN',
  'CAP_NET_BROADCAST',
  'CAP_PERFMON',
  'CAP_SYSLOG',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_MODULE',
  'CAP_SYS_NICE',
  'CAP_SYS_PACCT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_WAKE_ALARM',
].sort();

/**
 * The container's capabilities, sorted. As in containerd, names come with or without `CAP_`, `ALL` is allowed in both
 * lists, and a capability that is added and dropped is dropped unless only `ALL` drops it.
 * Errors: `invalid` for a name that the guest's kernel does not have.
 */
export function capabilitiesOf(security: ContainerSecurity): readonly string[] {
  if (security.privileged) return allCapabilities;
  const add = [...security.addCapabilities, ...(security.ambientCapabilities ?? [])].map(fullName);
  const drop = security.dropCapabilities.map(fullName);
  const dropsAll = drop.includes('ALL');
  const held = new Set(dropsAll ? [] : defaultCapabilities);
  for (const name of add.includes('ALL') ? allCapabilities : add) held.add(name);
  for (const name of drop) held.delete(name);
  return [...held].sort();
}

/** The container's capabilities that are also ambient, without dropped ones (capabilities(7)). Errors: `invalid`. */
export function ambientOf(security: ContainerSecurity, held: readonly string[]): readonly string[] {
  const wanted = (security.ambientCapabilities ?? []).map(fullName);
  return wanted.includes('ALL') ? held : held.filter((name) => wanted.includes(name));
}

function fullName(name: string): string {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return upper;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (allCapabilities.includes(full)) return full;
  throw new PodvmError('invalid', `Cannot give or take a capability: no such one, got ${JSON.stringify(name)}`, {
    fix: 'Use a name of capabilities(7), with or without CAP_.',
  });
}
