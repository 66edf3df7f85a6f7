import {
  type CallList,
  cloneNamespaces,
  onlyWhereArgumentIs,
  onlyWithoutBits,
  seccompProgram,
} from '#host/jail/seccomp-program.ts';
import { numberOf } from '#host/jail/syscall-numbers.ts';

/**
 * The system calls of the process that reads images (`import/`), and of mkfs.erofs for containerd's snapshots: files,
 * memory, threads and processes in its namespaces. The only sockets are pairs of unix ones, which Node uses to talk to
 * programs that it starts.
 */
export function readerCalls(): Buffer {
  return seccompProgram({ allowed: always, conditional: [ownProcesses, unixPairs] });
}

/** The system calls of skopeo: the same, those that only Go uses, and internet sockets. */
export function skopeoCalls(): Buffer {
  return seccompProgram({ allowed: `${always} ${network}`, conditional: [ownProcesses, unixPairs, sockets] });
}

type Conditional = CallList['conditional'][number];

const families = { unix: 1, inet: 2, inet6: 10 } as const;
const notPermitted = 1;

/** Allows threads and processes, but no new namespaces. */
const ownProcesses: Conditional = [numberOf('clone'), onlyWithoutBits(0, cloneNamespaces, notPermitted)];
const unixPairs: Conditional = [numberOf('socketpair'), onlyWhereArgumentIs(0, families.unix)];
/** Netlink, packet and other families reach other parts of the kernel. */
const sockets: Conditional = [numberOf('socket'), onlyWhereArgumentIs(0, families.unix, families.inet, families.inet6)];

/**
 * The calls of Node, Go, mkfs.erofs and C libraries. Without
 * `wait4`, Node aborts when a program that it started ends.
 */
const always = `
  read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
  rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise dup
  dup2 nanosleep getitimer setitimer getpid sendfile sendto recvfrom sendmsg recvmsg shutdown getsockname
  getpeername setsockopt getsockopt execve exit wait4 kill uname fcntl flock fsync fdatasync truncate ftruncate
  getdents getcwd chdir fchdir rename mkdir rmdir link unlink symlink readlink chmod fchmod umask gettimeofday
  getrlimit getrusage sysinfo times getuid getgid geteuid getegid getppid getpgrp setsid getgroups getresuid
  getresgid getpgid getsid capget rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack statfs fstatfs
  sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min mlock munlock prctl arch_prctl
  gettid getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr time futex sched_getaffinity getdents64
  set_tid_address restart_syscall fadvise64 timer_create timer_settime timer_gettime timer_delete clock_gettime
  clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill waitid openat mkdirat newfstatat unlinkat
  renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll set_robust_list get_robust_list
  sync_file_range utimensat epoll_pwait fallocate eventfd2 epoll_create1 dup3 pipe2 preadv pwritev prlimit64 getcpu
  renameat2 getrandom membarrier copy_file_range preadv2 pwritev2 statx rseq pidfd_send_signal pidfd_open
  close_range faccessat2 epoll_pwait2
`;

const network = `
  connect accept bind listen accept4 recvmmsg sendmmsg
`;
