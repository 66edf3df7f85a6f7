import { onlyThreads, onlyWhere, onlyWhereArgumentIs, seccompProgram } from '#host/jail/seccomp-program.ts';

/**
 * The jail's system call filter, in force before QEMU's first instruction. It lists allowed calls; QEMU's `-sandbox`,
 * added later, lists denied ones.
 */
export function seccompFilter(): Buffer {
  return seccompProgram({
    allowed,
    conditional: [
      [callNumbers.socket, onlyWhereArgumentIs(0, unixSockets)],
      [callNumbers.socketpair, onlyWhereArgumentIs(0, unixSockets)],
      [callNumbers.clone, onlyThreads],
      [callNumbers.madvise, unlessHugeForTables],
    ],
  });
}

const unixSockets = 1; // AF_UNIX

/** Calls whose arguments are checked. */
const callNumbers = { madvise: 28, socket: 41, socketpair: 53, clone: 56 } as const;

/**
 * Refuses a huge page for the guest's ACPI tables, which QEMU ignores. It asks for huge pages in all memory of the guest,
 * and the 4 KiB of tables, in a mapping that is as large as one, would take 2 MiB of a host that gives
 * huge pages on request.
 */
const [hugePageBytes, adviseHuge] = [2 * 1024 * 1024, 14]; // MADV_HUGEPAGE
const unlessHugeForTables = onlyWhere([
  { index: 1, op: 'SCMP_CMP_LT', value: hugePageBytes },
  { index: 1, op: 'SCMP_CMP_GT', value: hugePageBytes },
  { index: 2, op: 'SCMP_CMP_LT', value: adviseHuge },
  { index: 2, op: 'SCMP_CMP_GT', value: adviseHuge },
]);

/**
 * The calls of QEMU, glib, libaio and the C library while they
 * load, emulate or run KVM, serve unix sockets, and read and write files and a tap.
 */
const allowed = `
  read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
  rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore dup
  dup2 pause nanosleep getitimer alarm setitimer getpid connect accept sendto recvfrom sendmsg recvmsg shutdown bind
  listen getsockname getpeername setsockopt getsockopt execve exit uname fcntl flock fsync fdatasync ftruncate
  getdents getcwd unlink readlink umask gettimeofday getrlimit getrusage sysinfo getuid getgid geteuid getegid
  getppid rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack statfs fstatfs sched_getparam sched_getscheduler
  mlock munlock prctl arch_prctl gettid readahead time futex sched_getaffinity io_setup io_destroy io_getevents
  io_submit io_cancel getdents64 set_tid_address restart_syscall fadvise64 timer_create timer_settime timer_gettime
  timer_getoverrun timer_delete clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill
  openat newfstatat unlinkat readlinkat faccessat pselect6 ppoll set_robust_list get_robust_list sync_file_range
  epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2
  epoll_create1 dup3 pipe2 preadv pwritev prlimit64 getcpu seccomp getrandom membarrier copy_file_range preadv2
  pwritev2 statx io_pgetevents rseq close_range faccessat2 epoll_pwait2
`;
