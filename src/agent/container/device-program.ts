import type { Files, Kernel } from '#engine/engine.ts';
import { cgroupRoot } from './cgroups.ts';
import type { ContainerDevices } from './devices.ts';

/**
 * The rule for devices that most containers have, as a program of the kernel's device controller
 * (BPF_PROG_TYPE_CGROUP_DEVICE; Documentation/admin-guide/cgroup-v2.rst). It allows what crun allows every container: to
 * make any node, and to use the usual ones.
 *
 * crun would have the kernel verify and compile such a program for each container. This one is loaded once, at boot, so
 * that restored guests already have it.
 */
export function usualDevicesProgram(): Uint8Array {
  const program: readonly Instruction[] = [
    { code: load, to: type, from: context, offset: 0 },
    { code: load, to: access, from: context, offset: 0 },
    { code: load, to: major, from: context, offset: 4 },
    { code: load, to: minor, from: context, offset: 8 },
    { code: and, to: type, value: 0xffff },
    { code: shiftRight, to: access, value: 16 },
    { code: skipUnless, to: access, value: makesNode, offset: allow.length },
    ...allow,
    { code: skipIf, to: type, value: character, offset: refuse.length },
    ...refuse,
    ...usual.flatMap(([number, minors]) => {
      const tests = minors.flatMap((each) => [
        { code: skipUnless, to: minor, value: each, offset: allow.length },
        ...allow,
      ]);
      const then = minors.length === 0 ? allow : tests;
      return [{ code: skipUnless, to: major, value: number, offset: then.length }, ...then];
    }),
    ...refuse,
  ];
  const bytes = new Uint8Array(8 * program.length);
  const view = new DataView(bytes.buffer);
  for (const [at, { code, to, from = 0, offset = 0, value = 0 }] of program.entries()) {
    view.setUint8(8 * at, code);
    view.setUint8(8 * at + 1, (from << 4) | to);
    view.setInt16(8 * at + 2, offset, true);
    view.setInt32(8 * at + 4, value, true);
  }
  return bytes;
}

interface Parts {
  readonly engine: Pick<Files, 'makeDirectories'> & Pick<Kernel, 'attachDeviceProgram'>;
  /** Descriptor of the loaded program; undefined: crun loads one for each container. */
  readonly usualDevicesFd: number | undefined;
}

/** Gives the cgroup of a container with the usual rules the program, and returns its devices without rules for crun. */
export function withoutUsualRules(
  { engine, usualDevicesFd }: Parts,
  cgroup: string,
  devices: ContainerDevices,
): ContainerDevices {
  if (usualDevicesFd === undefined || !devices.areUsual) return devices;
  engine.makeDirectories(cgroupRoot + cgroup);
  engine.attachDeviceProgram(usualDevicesFd, cgroupRoot + cgroup);
  return { ...devices, rules: [] };
}

/** Character devices by major number, with their minor numbers; none: all of them. */
const usual: readonly (readonly [major: number, minors: readonly number[]])[] = [
  [1, [3, 5, 7, 8, 9]], // /dev/null, zero, full, and the sources of random bytes
  [5, [0, 1, 2]], // /dev/tty, console, and the maker of pseudo-terminals
  [10, [200]], // net/tun
  [136, []], // pseudo-terminals
];

/** An instruction: `struct bpf_insn` of linux/bpf.h. */
interface Instruction {
  readonly code: number;
  readonly to: number;
  readonly from?: number;
  readonly offset?: number;
  readonly value?: number;
}

// linux/bpf.h, linux/bpf_common.h
const load = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const and = 0x54; // BPF_ALU | BPF_AND | BPF_K
const shiftRight = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const skipIf = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const skipUnless = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const set = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const end = 0x95; // BPF_JMP | BPF_EXIT

/** Registers. The kernel passes `struct bpf_cgroup_dev_ctx` in `context`, and gets the answer in `answer`. */
const [answer, context, type, access, major, minor] = [0, 1, 2, 3, 4, 5];
const character = 2; // BPF_DEVCG_DEV_CHAR
const makesNode = 1; // BPF_DEVCG_ACC_MKNOD, and nothing else
const answerWith = (value: number): readonly Instruction[] => [
  { code: set, to: answer, value },
  { code: end, to: answer },
];
const [allow, refuse] = [answerWith(1), answerWith(0)];
