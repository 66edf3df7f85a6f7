/**
 * Compiles lists of system calls into classic BPF programs for seccomp(2). A jail lists the allowed calls, which limits
 * the kernel bugs that a compromised program can reach. Unlisted calls answer ENOSYS, so that libraries fall back to
 * listed ones; a foreign architecture ends the process.
 */
export interface CallList {
  /** `NAME NUMBER` for each call, separated by blanks; numbers as in the kernel's `unistd_64.h`. */
  readonly allowed: string;
  /** Calls whose arguments are checked, by number. Their instructions always return an answer. */
  readonly conditional: readonly (readonly [number: number, then: readonly Instruction[]])[];
}

export function seccompProgram({ allowed, conditional }: CallList): Buffer {
  const program: readonly Instruction[] = [
    { code: load, k: offsetOf.architecture },
    { code: jumpIfEqual, k: x86_64, whenTrue: 1 },
    end,
    { code: load, k: offsetOf.number },
    { code: jumpIfAtLeast, k: x32, whenFalse: 1 },
    noSuchCall,
    ...numbersOf(allowed).flatMap((number) => [{ code: jumpIfEqual, k: number, whenFalse: 1 }, allow]),
    ...conditional.flatMap(([number, then]) => [{ code: jumpIfEqual, k: number, whenFalse: then.length }, ...then]),
    noSuchCall,
  ];
  return Buffer.concat(program.map(encode));
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
const jumpIfAtLeast = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const jumpIfAnyBit = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const answer = 0x06; // BPF_RET | BPF_K

// linux/seccomp.h: `struct seccomp_data`, SECCOMP_RET_*
const offsetOf = { number: 0, architecture: 4 } as const;
/** Offset of an argument's lower 32 bits. */
const offsetOfArgument = (index: number) => 16 + 8 * index;
const allow: Instruction = { code: answer, k: 0x7fff_0000 };
const answerErrno = (errno: number): Instruction => ({ code: answer, k: 0x0005_0000 | errno });
const noSuchCall = answerErrno(38);
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

function numbersOf(table: string): readonly number[] {
  return table.match(/\b\d+(?=\s)/g)?.map(Number) ?? [];
}
