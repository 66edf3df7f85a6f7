import { onlyThreads, onlyWhereArgumentIs, onlyWithoutBits, seccompProgram } from '#host/jail/seccomp-program.ts';

/** Operations of a file server on the host's files besides reading them. */
interface Doing {
  readonly changes: boolean;
  readonly locks: boolean;
}

/**
 * Returns the system call filter of a file server, which `files` installs before its first request
 * (`src/file-server/jail.ts`). Excludes execve, sockets, processes and namespaces, and calls that change or lock files where
 * the server does not.
 */
export function fileServerCalls({ changes, locks }: Doing): Buffer {
  return seccompProgram({
    allowed: [always, ...(changes ? [changing] : []), ...(locks ? [locking] : [])].join(' '),
    conditional: [
      [clone, onlyThreads],
      ...(changes ? [] : [[openat, onlyWithoutBits(2, writing, readOnlyFileSystem)] as const]),
      ...(locks ? [] : [[fcntl, notLocking] as const]),
    ],
  });
}

const [clone, fcntl, openat] = [56, 72, 257];
/** Commands of fcntl(2): F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. */
const notLocking = onlyWhereArgumentIs(1, 0, 1, 2, 3, 4, 1030);
/** Flags of open(2) for writing: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, and O_TMPFILE's own bit. */
const writing = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000;
const readOnlyFileSystem = 30;

/** Calls of the program and the C library while they serve: loop, memory, threads for flushing, lookup and reading. */
const always = `
  read 0 write 1 close 3 fstat 5 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13 rt_sigprocmask 14
  rt_sigreturn 15 pread64 17 writev 20 sched_yield 24 mremap 25 madvise 28 dup 32 getpid 39 exit 60
  fsync 74 fdatasync 75 setgroups 116 setfsuid 122 setfsgid 123 capget 125 capset 126 sigaltstack 131
  fstatfs 138 prctl 157 gettid 186 getxattr 191 listxattr 194 futex 202 sched_getaffinity 204 getdents64 217
  restart_syscall 219 clock_gettime 228 clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233 tgkill 234
  newfstatat 262 readlinkat 267 set_robust_list 273 epoll_pwait 281 pipe2 293 getrandom 318 rseq 334 faccessat2 439
`;

/** Calls that lock files. Fcntl is listed here because its command does not matter then. */
const locking = 'fcntl 72 flock 73 ';

/** Calls that create, change and remove files. Opening a file is listed here because its flags do not matter then. */
const changing = `
  pwrite64 18 truncate 76 ftruncate 77 chmod 90 setxattr 188 removexattr 197 openat 257 mkdirat 258 mknodat 259
  fchownat 260 unlinkat 263 renameat 264 linkat 265 symlinkat 266 utimensat 280 fallocate 285 renameat2 316 copy_file_range 326
`;
