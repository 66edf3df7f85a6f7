/**
 * The jail's own system call filter, in force before QEMU's first instruction; QEMU's `-sandbox` lies over it later and
 * is a list of what is denied. This one lists what is allowed: a VMM that fell has no business with anything else, and
 * the less of the host's kernel it can call, the fewer of that kernel's faults are its way out.
 *
 * A classic BPF program as seccomp(2) takes it. What is not listed answers ENOSYS, so that libraries fall back to what
 * is; a foreign architecture ends the process.
 */
export function seccompFilter(): Buffer {
  return Buffer.concat(program().map(encode));
}

/** One instruction: linux/filter.h, `struct sock_filter`. */
interface Instruction {
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
const offsetOf = { number: 0, architecture: 4, firstArgument: 16 } as const;
const allow: Instruction = { code: answer, k: 0x7fff_0000 };
const noSuchCall: Instruction = { code: answer, k: 0x0005_0000 | 38 };
const end: Instruction = { code: answer, k: 0x8000_0000 };

const x86_64 = 0xc000_003e; // linux/audit.h
/** Calls of the x32 ABI have this bit; Debian's kernels have the ABI switched off. */
const x32 = 0x4000_0000;
const unixSockets = 1; // AF_UNIX
const cloneThread = 0x0001_0000;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const cloneNamespaces = 0x7e02_0000;

function program(): readonly Instruction[] {
  return [
    { code: load, k: offsetOf.architecture },
    { code: jumpIfEqual, k: x86_64, whenTrue: 1 },
    end,
    { code: load, k: offsetOf.number },
    { code: jumpIfAtLeast, k: x32, whenFalse: 1 },
    noSuchCall,
    ...numbersOf(allowed).flatMap((number) => [{ code: jumpIfEqual, k: number, whenFalse: 1 }, allow]),
    ...when(callNumbers.socket, onlyUnixSockets),
    ...when(callNumbers.socketpair, onlyUnixSockets),
    ...when(callNumbers.clone, onlyThreads),
    noSuchCall,
  ];
}

/** `then` never falls through: what it does not answer is answered for it. */
function when(number: number, then: readonly Instruction[]): readonly Instruction[] {
  return [{ code: jumpIfEqual, k: number, whenFalse: then.length }, ...then];
}

const onlyUnixSockets: readonly Instruction[] = [
  { code: load, k: offsetOf.firstArgument },
  { code: jumpIfEqual, k: unixSockets, whenFalse: 1 },
  allow,
  noSuchCall,
];

/** A thread, not a process, and no namespace of its own. clone3, whose flags no filter can see, is not there at all. */
const onlyThreads: readonly Instruction[] = [
  { code: load, k: offsetOf.firstArgument },
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

/** Those whose arguments are looked at. */
const callNumbers = { socket: 41, socketpair: 53, clone: 56 } as const;

/**
 * `NAME NUMBER`, numbers as in the kernel's `unistd_64.h`: what QEMU, glib, libaio and the C library call while they
 * load, emulate or run KVM, serve unix sockets, and read and write files and a tap.
 */
const allowed = `
  read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12
  rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 access 21
  pipe 22 select 23 sched_yield 24 mremap 25 msync 26 mincore 27 madvise 28 dup 32 dup2 33 pause 34 nanosleep 35
  getitimer 36 alarm 37 setitimer 38 getpid 39 connect 42 accept 43 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47
  shutdown 48 bind 49 listen 50 getsockname 51 getpeername 52 setsockopt 54 getsockopt 55 execve 59 exit 60
  uname 63 fcntl 72 flock 73 fsync 74 fdatasync 75 ftruncate 77 getdents 78 getcwd 79 unlink 87 readlink 89
  umask 95 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99 getuid 102 getgid 104 geteuid 107 getegid 108
  getppid 110 rt_sigpending 127 rt_sigtimedwait 128 rt_sigsuspend 130 sigaltstack 131 statfs 137 fstatfs 138
  sched_getparam 143 sched_getscheduler 145 mlock 149 munlock 150 prctl 157 arch_prctl 158 gettid 186
  readahead 187 time 201 futex 202 sched_getaffinity 204 io_setup 206 io_destroy 207 io_getevents 208 io_submit 209
  io_cancel 210 getdents64 217 set_tid_address 218 restart_syscall 219 fadvise64 221 timer_create 222 timer_settime 223
  timer_gettime 224 timer_getoverrun 225 timer_delete 226 clock_gettime 228 clock_getres 229 clock_nanosleep 230
  exit_group 231 epoll_wait 232 epoll_ctl 233 tgkill 234 openat 257 newfstatat 262 unlinkat 263 readlinkat 267
  faccessat 269 pselect6 270 ppoll 271 set_robust_list 273 get_robust_list 274 sync_file_range 277 epoll_pwait 281
  signalfd 282 timerfd_create 283 eventfd 284 fallocate 285 timerfd_settime 286 timerfd_gettime 287 accept4 288
  signalfd4 289 eventfd2 290 epoll_create1 291 dup3 292 pipe2 293 preadv 295 pwritev 296 prlimit64 302 getcpu 309
  seccomp 317 getrandom 318 membarrier 324 copy_file_range 326 preadv2 327 pwritev2 328 statx 332 io_pgetevents 333
  rseq 334 close_range 436 faccessat2 439 epoll_pwait2 441
`;

function numbersOf(table: string): readonly number[] {
  return table.match(/\b\d+(?=\s)/g)?.map(Number) ?? [];
}
