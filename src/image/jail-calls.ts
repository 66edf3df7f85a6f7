import {
  type CallList,
  cloneNamespaces,
  onlyWhereArgumentIs,
  onlyWithoutBits,
  seccompProgram,
} from '#host/jail/seccomp-program.ts';

/**
 * The system calls of the process that reads images (`import/`), and of mkfs.erofs, which it starts: files, memory,
 * threads and processes in its namespaces. The only sockets are pairs of unix ones, which Node uses to talk to programs
 * that it starts.
 */
export function readerCalls(): Buffer {
  return seccompProgram({ allowed: always, conditional: [ownProcesses, unixPairs] });
}

/** The system calls of skopeo: the same, those that only Go uses, and internet sockets. */
export function skopeoCalls(): Buffer {
  return seccompProgram({ allowed: `${always} ${network}`, conditional: [ownProcesses, unixPairs, sockets] });
}

type Conditional = CallList['conditional'][number];

const callNumbers = { socket: 41, socketpair: 53, clone: 56 } as const;
const families = { unix: 1, inet: 2, inet6: 10 } as const;
const notPermitted = 1;

/** Allows threads and processes, but no new namespaces. */
const ownProcesses: Conditional = [callNumbers.clone, onlyWithoutBits(0, cloneNamespaces, notPermitted)];
const unixPairs: Conditional = [callNumbers.socketpair, onlyWhereArgumentIs(0, families.unix)];
/** Netlink, packet and other families reach other parts of the kernel. */
const sockets: Conditional = [callNumbers.socket, onlyWhereArgumentIs(0, families.unix, families.inet, families.inet6)];

/**
 * `NAME NUMBER`, numbers as in the kernel's `unistd_64.h`: the calls of Node, Go, mkfs.erofs and C libraries. Without
 * `wait4`, Node aborts when a program that it started ends.
 */
const always = `
  read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12
  rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 access 21
  pipe 22 select 23 sched_yield 24 mremap 25 msync 26 mincore 27 madvise 28 dup 32 dup2 33 nanosleep 35 getitimer 36
  setitimer 38 getpid 39 sendfile 40 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47 shutdown 48 getsockname 51
  getpeername 52 setsockopt 54 getsockopt 55 execve 59 exit 60 wait4 61 kill 62 uname 63 fcntl 72 flock 73 fsync 74
  fdatasync 75 truncate 76 ftruncate 77 getdents 78 getcwd 79 chdir 80 fchdir 81 rename 82 mkdir 83 rmdir 84 link 86
  unlink 87 symlink 88 readlink 89 chmod 90 fchmod 91 umask 95 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99
  times 100 getuid 102 getgid 104 geteuid 107 getegid 108 getppid 110 getpgrp 111 setsid 112 getgroups 115
  getresuid 118 getresgid 120 getpgid 121 getsid 124 capget 125 rt_sigpending 127 rt_sigtimedwait 128
  rt_sigsuspend 130 sigaltstack 131 statfs 137 fstatfs 138 sched_getparam 143 sched_getscheduler 145
  sched_get_priority_max 146 sched_get_priority_min 147 mlock 149 munlock 150 prctl 157 arch_prctl 158 gettid 186
  getxattr 191 lgetxattr 192 fgetxattr 193 listxattr 194 llistxattr 195 flistxattr 196 time 201 futex 202
  sched_getaffinity 204 getdents64 217 set_tid_address 218 restart_syscall 219 fadvise64 221 timer_create 222
  timer_settime 223 timer_gettime 224 timer_delete 226 clock_gettime 228 clock_getres 229 clock_nanosleep 230
  exit_group 231 epoll_wait 232 epoll_ctl 233 tgkill 234 waitid 247 openat 257 mkdirat 258 newfstatat 262 unlinkat 263
  renameat 264 linkat 265 symlinkat 266 readlinkat 267 fchmodat 268 faccessat 269 pselect6 270 ppoll 271
  set_robust_list 273 get_robust_list 274 sync_file_range 277 utimensat 280 epoll_pwait 281 fallocate 285 eventfd2 290
  epoll_create1 291 dup3 292 pipe2 293 preadv 295 pwritev 296 prlimit64 302 getcpu 309 renameat2 316 getrandom 318
  membarrier 324 copy_file_range 326 preadv2 327 pwritev2 328 statx 332 rseq 334 pidfd_send_signal 424 pidfd_open 434
  close_range 436 faccessat2 439 epoll_pwait2 441
`;

const network = `
  connect 42 accept 43 bind 49 listen 50 accept4 288 recvmmsg 299 sendmmsg 307
`;
