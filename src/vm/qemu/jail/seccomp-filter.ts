import { onlyThreads, onlyWhereArgumentIs, seccompProgram } from '#host/jail/seccomp-program.ts';

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
    ],
  });
}

const unixSockets = 1; // AF_UNIX

/** Calls whose arguments are checked. */
const callNumbers = { socket: 41, socketpair: 53, clone: 56 } as const;

/**
 * `NAME NUMBER`, numbers as in the kernel's `unistd_64.h`: the calls of QEMU, glib, libaio and the C library while they
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
