import { PodvmError } from '#base/errors.ts';
import type { ContainerSecurity } from '../spec/container-security.ts';
import { allowedSyscalls, syscallsByCapability } from './syscalls.ts';

/** errno values for refused calls. */
const notPermitted = 1;
const noSuchCall = 38;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a container may not make namespaces. */
const namespaceFlags = 0x7e02_0000;
const addressFamilyAlg = 38;
const addressFamilyVsock = 40;
/** Linux, BSD and the query (personality(2)); also with ADDR_NO_RANDOMIZE, which debuggers and emacs set. */
const personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

type Operator = 'SCMP_CMP_EQ' | 'SCMP_CMP_NE' | 'SCMP_CMP_LT' | 'SCMP_CMP_GT' | 'SCMP_CMP_MASKED_EQ';
interface Rule {
  readonly names: readonly string[];
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number;
    readonly valueTwo?: number;
    readonly op: Operator;
  }[];
}

/**
 * The OCI `linux.seccomp` object of a container; null is unconfined. Errors: `invalid` for a localhost profile that is not
 * an object (crun checks the rest).
 */
export function seccompOf(
  security: ContainerSecurity,
  capabilities: readonly string[],
): Record<string, unknown> | null {
  const { seccomp, privileged } = security;
  if (privileged || seccomp.kind === 'unconfined') return null;
  if (seccomp.kind === 'runtimeDefault') return runtimeDefault(capabilities);
  const { profile } = seccomp;
  if (typeof profile === 'object' && profile !== null && !Array.isArray(profile)) return { ...profile };
  throw new PodvmError('invalid', `Cannot use the seccomp profile: it must be a JSON object, got ${typeof profile}`, {
    fix: 'Give a profile as containerd and CRI-O read it: an object with defaultAction and syscalls.',
  });
}

/** RuntimeDefault for a container with these capabilities. */
export function runtimeDefault(capabilities: readonly string[]): Record<string, unknown> {
  const opened = new Set(capabilities.flatMap((capability) => syscallsByCapability[capability] ?? []));
  const closed = [...new Set(Object.values(syscallsByCapability).flat())].filter((name) => !opened.has(name));
  const rules: Rule[] = [{ names: [...allowedSyscalls, ...opened], action: 'SCMP_ACT_ALLOW' }, ...argumentRules];
  if (!opened.has('clone')) rules.push(...cloneRules);
  // An existing call that is refused returns EPERM; unknown calls get the default answer, ENOSYS, so that programs
  // try the older call (moby/moby#42680, clone3).
  const refused = [...closed.filter((name) => name !== 'clone' && name !== 'clone3'), ...alwaysRefused];
  rules.push({ names: refused, action: 'SCMP_ACT_ERRNO', errnoRet: notPermitted });
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: noSuchCall,
    architectures: ['SCMP_ARCH_X86_64'],
    syscalls: rules,
  };
}

const alwaysRefused = [
  'add_key',
  'kexec_file_load',
  'kexec_load',
  'keyctl',
  'pivot_root',
  'request_key',
  'swapoff',
  'swapon',
  'userfaultfd',
];

const socketFamilies = (op: Operator, value: number): Rule => ({
  names: ['socket'],
  action: 'SCMP_ACT_ALLOW',
  args: [{ index: 0, value, op }],
});

const argumentRules: readonly Rule[] = [
  ...personalities.map((value): Rule => ({
    names: ['personality'],
    action: 'SCMP_ACT_ALLOW',
    args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
  })),
  // Excludes AF_ALG (kernel crypto, a frequent source of vulnerabilities) and AF_VSOCK (it reaches out of a VM).
  socketFamilies('SCMP_CMP_LT', addressFamilyAlg),
  socketFamilies('SCMP_CMP_EQ', addressFamilyAlg + 1),
  socketFamilies('SCMP_CMP_GT', addressFamilyVsock),
];

const cloneRules: readonly Rule[] = [
  {
    names: ['clone'],
    action: 'SCMP_ACT_ALLOW',
    args: [{ index: 0, value: namespaceFlags, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
  },
  // Its flags are in memory, which seccomp cannot inspect; glibc falls back to clone.
  { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: noSuchCall },
];
