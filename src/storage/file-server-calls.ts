import { onlyThreads, onlyWhereArgumentIs, onlyWithoutBits, seccompProgram } from '#host/jail/seccomp-program.ts';
import { numberOf } from '#host/jail/syscall-numbers.ts';

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

const [clone, fcntl, openat] = [numberOf('clone'), numberOf('fcntl'), numberOf('openat')];
/** Commands of fcntl(2): F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. */
const notLocking = onlyWhereArgumentIs(1, 0, 1, 2, 3, 4, 1030);
/** Flags of open(2) for writing: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, and O_TMPFILE's own bit. */
const writing = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000;
const readOnlyFileSystem = 30;

/** Calls of the program and the C library while they serve: loop, memory, threads for flushing, lookup and reading. */
const always = `
  read write close fstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 writev
  sched_yield mremap madvise dup getpid exit fsync fdatasync setgroups setfsuid setfsgid capget capset sigaltstack
  fstatfs prctl gettid getxattr listxattr futex sched_getaffinity getdents64 restart_syscall clock_gettime
  clock_nanosleep exit_group epoll_wait epoll_ctl tgkill newfstatat readlinkat set_robust_list epoll_pwait pipe2
  getrandom rseq faccessat2
`;

/** Calls that lock files. Fcntl is listed here because its command does not matter then. */
const locking = 'fcntl flock';

/** Calls that create, change and remove files. Opening a file is listed here because its flags do not matter then. */
const changing = `
  pwrite64 truncate ftruncate chmod setxattr removexattr openat mkdirat mknodat fchownat unlinkat renameat linkat
  symlinkat utimensat fallocate renameat2 copy_file_range
`;
