import { numberOf } from './syscall-numbers.ts';

/**
 * Compiles lists of system calls into classic BPF programs for seccomp(2). A jail lists the allowed calls, which limits
 * the kernel bugs that a compromised program can reach. Unlisted calls answer ENOSYS, so that libraries fall back to
 * listed ones; a foreign architecture ends the process.
 */
export interface CallList {
  /** Names of calls, separated by blanks. */
  readonly allowed: string;
  /** Calls whose arguments are checked, by number. Their instructions always return an answer. */
  readonly conditional: readonly (readonly [number: number, then: readonly Instruction[]])[];
}

export function seccompProgram({ allowed, conditional }: CallList): Buffer {
  return answeringProgram([...conditional, ...numbersOf(allowed).map((number) => [number, onlyAllow] as const)]);
}

/**
 * Compiles answers by the number of the call; of several for one number, the last counts. Others get ENOSYS.
 *
 * The number is found by bisection. When a filter is set, the kernel compiles it, and runs it for every number to learn
 * which calls it always allows. An emulated kernel takes several milliseconds for a long list of comparisons.
 */
export function answeringProgram(
  answers: readonly (readonly [number: number, then: readonly Instruction[]])[],
): Buffer {
  const program: readonly Instruction[] = [
    { code: load, k: offsetOf.architecture },
    { code: jumpIfEqual, k: x86_64, whenTrue: 1 },
    end,
    { code: load, k: offsetOf.number },
    { code: jumpIfAtLeast, k: x32, whenFalse: 1 },
    noSuchCall,
    ...bisected(rangesOf(new Map(answers))),
  ];
  return Buffer.concat(program.map(encode));
}

/** Numbers from `from` to the next range that get the same answer. */
interface Range {
  readonly from: number;
  readonly instructions: readonly Instruction[];
}

function rangesOf(answers: ReadonlyMap<number, readonly Instruction[]>): Range[] {
  const bounds = new Set([0, ...[...answers.keys()].flatMap((number) => [number, number + 1])]);
  const ranges = [...bounds]
    .toSorted((one, other) => one - other)
    .map((from): Range => ({ from, instructions: answers.get(from) ?? onlyNoSuchCall }));
  return ranges.filter(({ instructions }, at) => !isSame(instructions, ranges[at - 1]?.instructions));
}

const isSame = (one: readonly Instruction[], other: readonly Instruction[] | undefined): boolean =>
  JSON.stringify(one) === JSON.stringify(other);

/** Jumps at half of the ranges, and so on in each half. */
function bisected(ranges: readonly Range[]): readonly Instruction[] {
  const half = Math.floor(ranges.length / 2);
  if (half === 0) return ranges[0]?.instructions ?? [];
  const [lower, upper] = [bisected(ranges.slice(0, half)), bisected(ranges.slice(half))];
  const bound = ranges[half]?.from ?? 0;
  const skip: readonly Instruction[] =
    lower.length <= maxSkipped
      ? [{ code: jumpIfAtLeast, k: bound, whenTrue: lower.length }]
      : [
          { code: jumpIfAtLeast, k: bound, whenFalse: 1 },
          { code: jump, k: lower.length },
        ];
  return [...skip, ...lower, ...upper];
}

/** One instruction: `struct sock_filter` of linux/filter.h. */
export interface Instruction {
  readonly code: number;
  readonly whenTrue?: number;
  readonly whenFalse?: number;
  readonly k: number;
}

// linux/bpf_common.h
const load = 0x20; // BPF_LD | BPF_W | BPF_ABS
const jumpIfEqual = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const jumpIfAbove = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const jumpIfAtLeast = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const jumpIfAnyBit = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const jump = 0x05; // BPF_JMP | BPF_JA
const and = 0x54; // BPF_ALU | BPF_AND | BPF_K
/** Maximum number of instructions that a conditional jump skips. */
const maxSkipped = 255;
const answer = 0x06; // BPF_RET | BPF_K

// linux/seccomp.h: `struct seccomp_data`, SECCOMP_RET_*
const offsetOf = { number: 0, architecture: 4 } as const;
/** Offset of an argument's lower 32 bits. */
const offsetOfArgument = (index: number) => 16 + 8 * index;
const allow: Instruction = { code: answer, k: 0x7fff_0000 };
const answerErrno = (errno: number): Instruction => ({ code: answer, k: 0x0005_0000 | errno });
const noSuchCall = answerErrno(38);
export const onlyAllow: readonly Instruction[] = [allow];
const onlyNoSuchCall: readonly Instruction[] = [noSuchCall];
export const onlyErrno = (errno: number): readonly Instruction[] => [answerErrno(errno)];
const end: Instruction = { code: answer, k: 0x8000_0000 };

const x86_64 = 0xc000_003e; // linux/audit.h
/** Bit of x32 ABI calls; Debian's kernels have the ABI switched off. */
const x32 = 0x4000_0000;
const cloneThread = 0x0001_0000;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
export const cloneNamespaces = 0x7e02_0000;

/** Allows the call if the argument is one of these numbers. */
export const onlyWhereArgumentIs = (index: number, ...values: readonly number[]): readonly Instruction[] => [
  { code: load, k: offsetOfArgument(index) },
  ...values.flatMap((value) => [{ code: jumpIfEqual, k: value, whenFalse: 1 }, allow]),
  noSuchCall,
];

/** Test of an argument's lower 32 bits, in OCI's words (`linux.seccomp.syscalls.args`); `value` is the mask of MASKED_EQ. */
export interface ArgumentTest {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: keyof typeof comparisons;
}

/** Instructions after which the next one is skipped if the comparison is false. */
const comparisons = {
  SCMP_CMP_EQ: (value: number) => [{ code: jumpIfEqual, k: value, whenFalse: 1 }],
  SCMP_CMP_LT: (value: number) => [{ code: jumpIfAtLeast, k: value, whenTrue: 1 }],
  SCMP_CMP_GT: (value: number) => [{ code: jumpIfAbove, k: value, whenFalse: 1 }],
  SCMP_CMP_MASKED_EQ: (mask: number, value: number) => [
    { code: and, k: mask },
    { code: jumpIfEqual, k: value, whenFalse: 1 },
  ],
} satisfies Record<string, (value: number, valueTwo: number) => readonly Instruction[]>;

/** Allows the call if one of the tests is true. */
export const onlyWhere = (tests: readonly ArgumentTest[]): readonly Instruction[] => [
  ...tests.flatMap(({ index, value, valueTwo = 0, op }) => [
    { code: load, k: offsetOfArgument(index) },
    ...comparisons[op](value, valueTwo),
    allow,
  ]),
  noSuchCall,
];

/** Allows the call if the argument has none of the bits; otherwise fails with that errno. */
export const onlyWithoutBits = (index: number, bits: number, errno: number): readonly Instruction[] => [
  { code: load, k: offsetOfArgument(index) },
  { code: jumpIfAnyBit, k: bits, whenTrue: 1 },
  allow,
  answerErrno(errno),
];

/**
 * Filter for clone: allows threads, but no processes and no namespaces. No list has clone3, whose flags no filter can
 * see.
 */
export const onlyThreads: readonly Instruction[] = [
  { code: load, k: offsetOfArgument(0) },
  { code: jumpIfAnyBit, k: cloneNamespaces, whenTrue: 2 },
  { code: jumpIfAnyBit, k: cloneThread, whenFalse: 1 },
  allow,
  noSuchCall,
];

function encode({ code, whenTrue = 0, whenFalse = 0, k }: Instruction): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(whenTrue, 2);
  bytes.writeUInt8(whenFalse, 3);
  bytes.writeUInt32LE(k >>> 0, 4);
  return bytes;
}

function numbersOf(names: string): readonly number[] {
  return names.trim().split(/\s+/).map(numberOf);
}
