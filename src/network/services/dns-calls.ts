import { cloneNamespaces, onlyWhereArgumentIs, onlyWithoutBits, seccompProgram } from '#host/jail/seccomp-program.ts';
import { numberOf } from '#host/jail/syscall-numbers.ts';

const families = { inet: 2, inet6: 10, netlink: 16 } as const;
const notPermitted = 1;

/**
 * The system calls of the name server of Services: files that it reads, sockets of the internet, a netlink socket with which it
 * lists addresses, and a process for each connection over TCP. No unix socket, no namespace, mount or ptrace, and nothing that
 * changes files.
 */
export function dnsCalls(): Buffer {
  return seccompProgram({
    allowed,
    conditional: [
      [numberOf('clone'), onlyWithoutBits(0, cloneNamespaces, notPermitted)],
      [numberOf('socket'), onlyWhereArgumentIs(0, families.inet, families.inet6, families.netlink)],
    ],
  });
}

/** Those of the program and its C library, with the ones that other versions of them use instead; execve is the jail's. */
const allowed = `
  read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
  ioctl pread64 readv writev access pipe select mremap madvise dup dup2 nanosleep alarm getpid sendto recvfrom sendmsg
  recvmsg shutdown bind listen accept getsockname getpeername connect setsockopt getsockopt execve exit wait4 kill
  uname fcntl getdents getcwd chdir readlink umask gettimeofday getrlimit getrusage sysinfo times getuid getgid geteuid
  getegid getppid setsid getgroups capget sigaltstack statfs fstatfs prctl arch_prctl gettid time futex getdents64
  set_tid_address restart_syscall fadvise64 clock_gettime clock_getres clock_nanosleep exit_group tgkill openat newfstatat
  readlinkat faccessat pselect6 ppoll set_robust_list accept4 dup3 pipe2 prlimit64 getrandom statx rseq close_range
  faccessat2
`;
