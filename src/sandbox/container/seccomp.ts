import { PodvmError } from '#base/errors.ts';
import { type ArgumentTest, answeringProgram, onlyAllow, onlyErrno, onlyWhere } from '#host/jail/seccomp-program.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Welcome } from '#wire/messages.ts';
import type { ContainerSecurity } from '../spec/container-security.ts';
import { syscallNumbers } from '#host/jail/syscall-numbers.ts';
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

interface Rule {
  readonly names: readonly string[];
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  readonly errnoRet?: number;
  /** One test; of several rules for a call, one must be true. */
  readonly args?: readonly [ArgumentTest];
}

/**
 * Returns the filter of a container for its agent. Errors: `invalid` for a localhost profile that is not an object (crun
 * checks the rest).
 */
export function seccompOf(
  security: ContainerSecurity,
  capabilities: readonly string[],
  { takesPrograms = false }: Pick<Welcome, 'takesPrograms'>,
): ContainerParams['seccomp'] {
  const { seccomp, privileged } = security;
  if (privileged || seccomp.kind === 'unconfined') return null;
  if (seccomp.kind === 'runtimeDefault') {
    return takesPrograms ? runtimeDefaultProgram(capabilities).toString('base64') : runtimeDefault(capabilities);
  }
  const { profile } = seccomp;
  if (typeof profile === 'object' && profile !== null && !Array.isArray(profile)) return { ...profile };
  throw new PodvmError('invalid', `Cannot use the seccomp profile: it must be a JSON object, got ${typeof profile}`, {
    fix: 'Give a profile as containerd and CRI-O read it: an object with defaultAction and syscalls.',
  });
}

/** RuntimeDefault for a container with these capabilities, as OCI's `linux.seccomp`. */
export function runtimeDefault(capabilities: readonly string[]): Record<string, unknown> {
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: noSuchCall,
    architectures: ['SCMP_ARCH_X86_64'],
    syscalls: rulesOf(capabilities),
  };
}

/**
 * The same as a program for seccomp(2): the guest gets 2 KB instead of 6, crun compiles nothing, and the kernel has half of
 * the instructions to take.
 */
export function runtimeDefaultProgram(capabilities: readonly string[]): Buffer {
  const rules = rulesOf(capabilities);
  const tests = new Map<string, ArgumentTest[]>();
  for (const { names, args } of rules)
    for (const name of names) if (args !== undefined) tests.set(name, [...(tests.get(name) ?? []), ...args]);
  return answeringProgram([
    ...[...tests].map(([name, those]) => [numberOf(name), onlyWhere(those)] as const),
    ...rules
      .filter(({ args }) => args === undefined)
      .flatMap(({ names, action, errnoRet = notPermitted }) => {
        const then = action === 'SCMP_ACT_ALLOW' ? onlyAllow : onlyErrno(errnoRet);
        return names.map((name) => [numberOf(name), then] as const);
      }),
  ]);
}

function numberOf(name: string): number {
  const number = syscallNumbers.get(name);
  if (number === undefined) throw new Error(`Cannot compile the system call filter: ${name} has no number`);
  return number;
}

function rulesOf(capabilities: readonly string[]): readonly Rule[] {
  const opened = new Set(capabilities.flatMap((capability) => syscallsByCapability[capability] ?? []));
  const closed = [...new Set(Object.values(syscallsByCapability).flat())].filter((name) => !opened.has(name));
  // An existing call that is refused returns EPERM; unknown calls get the default answer, ENOSYS, so that programs
  // try the older call (moby/moby#42680, clone3).
  const refused = [...closed.filter((name) => name !== 'clone' && name !== 'clone3'), ...alwaysRefused];
  return [
    { names: [...allowedSyscalls, ...opened], action: 'SCMP_ACT_ALLOW' },
    ...argumentRules,
    ...(opened.has('clone') ? [] : cloneRules),
    { names: refused, action: 'SCMP_ACT_ERRNO', errnoRet: notPermitted },
  ];
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

const socketFamilies = (op: ArgumentTest['op'], value: number): Rule => ({
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
