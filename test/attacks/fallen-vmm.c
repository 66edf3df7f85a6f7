/*
 * Attacks of a VMM that a guest has taken over. Its arguments name all targets, which a real attacker would have to
 * find. Tries each attack once, and prints `NAME RESULT` for it: `done` if it worked, else the reason.
 *
 *   fallen-vmm VICTIM_DIR VICTIM_PID VICTIM_NETNS STATE_DIR ADMIN_SOCKET ABSTRACT_SOCKET [control]
 *
 * `control` leaves out attacks that would change a host without a jail: the list also runs there, to show that its
 * attacks can succeed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static const char *victim_dir, *victim_netns, *state_dir, *admin_socket, *abstract_socket;
static int victim;

static void say(const char *name, long result)
{
	printf("%s %s\n", name, result >= 0 ? "done" : strerrorname_np(errno));
}

#define TRY(name, attack) (errno = 0, say(name, (long)(attack)))

static const char *path(const char *directory, const char *file)
{
	static char text[PATH_MAX];
	snprintf(text, sizeof text, "%s/%s", directory, file);
	return text;
}

static int open_and_close(const char *name, int flags)
{
	int fd = open(name, flags, 0600);
	if (fd >= 0)
		close(fd);
	return fd;
}

static int connect_to(const char *name, int is_abstract)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strnlen(name, sizeof address.sun_path - 2);
	memcpy(address.sun_path + is_abstract, name, length);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return fd;
	int result = connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + length + 1);
	int why = errno;
	close(fd);
	errno = why;
	return result;
}

static int socket_of(int family, int type)
{
	int fd = socket(family, type, 0);
	if (fd >= 0)
		close(fd);
	return fd;
}

static int make_tap(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	int fd = open("/dev/net/tun", O_RDWR);
	return fd < 0 ? fd : ioctl(fd, TUNSETIFF, &request);
}

static int enter(const char *netns)
{
	int fd = open(netns, O_RDONLY);
	return fd < 0 ? fd : setns(fd, CLONE_NEWNET);
}

static int forks(void)
{
	long child = syscall(SYS_fork);
	if (child == 0)
		_exit(0);
	return child < 0 ? -1 : 0;
}

static int clones(unsigned long flags)
{
	long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	return child < 0 ? -1 : 0;
}

static int read_memory_of_victim(void)
{
	char bytes[64];
	struct iovec here = {bytes, sizeof bytes}, there = {(void *)0x400000, sizeof bytes};
	int result = (int)process_vm_readv(victim, &here, 1, &there, 1, 0);
	return result < 0 && errno == EFAULT ? 0 : result; /* it was let in, only not at this address */
}

static int fill_a_file(const char *name)
{
	int fd = open(name, O_WRONLY);
	if (fd < 0)
		return fd;
	int result = fallocate(fd, 0, 0, (off_t)64 << 30);
	int why = errno;
	close(fd);
	errno = why;
	return result;
}

static int raise_limit(int resource)
{
	struct rlimit limit = {1 << 20, 1 << 20};
	return setrlimit(resource, &limit);
}

/* The neighbour, the host's files, and the VMM's own files that it may not change. */
static void attack_files(void)
{
	const char *files[] = {"scratch.ext4", "console.log", "vmm.log", "../sandbox.json", "../logs", "sockets"};
	char name[64];
	for (size_t at = 0; at < sizeof files / sizeof *files; at++) {
		snprintf(name, sizeof name, "read-neighbours:%s", files[at]);
		TRY(name, open_and_close(path(victim_dir, files[at]), O_RDONLY));
	}
	const char *of_host[] = {"/etc/shadow", "/root", "/proc/1/environ", "/proc/self/status", "/sys/kernel", "/home"};
	for (size_t at = 0; at < sizeof of_host / sizeof *of_host; at++) {
		snprintf(name, sizeof name, "read-host:%s", of_host[at]);
		TRY(name, open_and_close(of_host[at], O_RDONLY));
	}
	char text[64];
	snprintf(text, sizeof text, "/proc/%d/mem", victim);
	TRY("read-host:proc-of-neighbour", open_and_close(text, O_RDONLY));
	TRY("read-host:state-directory", open_and_close(state_dir, O_RDONLY | O_DIRECTORY));
	TRY("read-own:console.log", open_and_close("/machine/console.log", O_RDONLY));
	TRY("device:/dev/mem", open_and_close("/dev/mem", O_RDONLY));
	TRY("device:/dev/kmsg", open_and_close("/dev/kmsg", O_RDONLY));
	TRY("device:/dev/fuse", open_and_close("/dev/fuse", O_RDWR));
	TRY("device:/dev/loop-control", open_and_close("/dev/loop-control", O_RDWR));
	TRY("device:another-tap", make_tap("evil0"));
}

static void change_files(void)
{
	TRY("write-template", open_and_close("/template/memory", O_RDWR));
	TRY("make-file:/template", open_and_close("/template/evil", O_CREAT | O_WRONLY));
	TRY("write-image", open_and_close("/machine/image.erofs", O_RDWR));
	TRY("link-image", link("/machine/image.erofs", "/machine/sockets/image"));
	TRY("chmod-image", chmod("/machine/image.erofs", 0777));
	TRY("write-own:vmm.log", open_and_close("/machine/vmm.log", O_WRONLY | O_APPEND));
	TRY("make-file:/machine", open_and_close("/machine/evil", O_CREAT | O_WRONLY));
	TRY("make-file:/machine/sockets", open_and_close("/machine/sockets/evil", O_CREAT | O_WRONLY));
	TRY("make-file:/machine/devices", open_and_close("/machine/devices/evil", O_CREAT | O_WRONLY));
	TRY("replace-socket", unlink("/machine/sockets/agent"));
	TRY("swap-socket", rename("/machine/sockets/agent", "/machine/sockets/evil"));
	TRY("link-socket-to-host", symlink(admin_socket, "/machine/sockets/evil"));
	TRY("make-file:/usr", open_and_close("/usr/evil", O_CREAT | O_WRONLY));
	TRY("make-file:/", open_and_close("/evil", O_CREAT | O_WRONLY));
	TRY("make-device", mknod("/dev/evil", S_IFBLK | 0600, makedev(259, 0)));
	TRY("fill-disk", fill_a_file("/machine/scratch.ext4"));
	TRY("set-uid-file", chmod("/machine/sockets", 04777));
}

static void attack_network(void)
{
	TRY("connect:admin-socket", connect_to(admin_socket, 0));
	TRY("connect:neighbours-agent", connect_to(path(victim_dir, "sockets/agent"), 0));
	TRY("connect:neighbours-qmp", connect_to(path(victim_dir, "sockets/qmp"), 0));
	TRY("connect:abstract-socket-of-host", connect_to(abstract_socket, 1));
	TRY("socket:inet", socket_of(AF_INET, SOCK_STREAM));
	TRY("socket:inet6", socket_of(AF_INET6, SOCK_DGRAM));
	TRY("socket:netlink", socket_of(AF_NETLINK, SOCK_RAW));
	TRY("socket:packet", socket_of(AF_PACKET, SOCK_RAW));
	TRY("socket:alg", socket_of(38, SOCK_SEQPACKET));
	TRY("enter:netns-of-neighbour", enter(victim_netns));
}

static void attack_processes(void)
{
	TRY("signal:neighbour", kill(victim, 0));
	TRY("signal:by-descriptor", syscall(SYS_pidfd_open, victim, 0));
	TRY("trace:neighbour", ptrace(PTRACE_SEIZE, victim, 0, 0));
	TRY("trace:memory-of-neighbour", read_memory_of_victim());
	TRY("process:fork", forks());
	TRY("process:clone", clones(0));
	TRY("process:new-user-namespace", clones(CLONE_NEWUSER));
	TRY("namespace:mount", unshare(CLONE_NEWNS));
	TRY("namespace:net", unshare(CLONE_NEWNET));
	TRY("namespace:user", unshare(CLONE_NEWUSER));
}

static void gain_privileges(void)
{
	TRY("become:root", setresuid(0, 0, 0));
	TRY("become:group-root", setresgid(0, 0, 0));
	TRY("capability:ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
	TRY("mount:tmpfs", mount("evil", "/dev/shm", "tmpfs", 0, ""));
	TRY("mount:remount-root", mount("", "/", "", MS_REMOUNT | MS_BIND, ""));
	TRY("mount:umount", umount2("/machine", MNT_DETACH));
	TRY("root:chroot", chroot("/usr"));
	TRY("limit:core", raise_limit(RLIMIT_CORE));
	TRY("limit:files", raise_limit(RLIMIT_NOFILE));
	TRY("limit:file-size", setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
}

static void *wait_for_ever(void *nothing)
{
	pause();
	return nothing;
}

/* Makes as many threads as possible, and prints their number. */
static void count_threads(void)
{
	pthread_attr_t small;
	pthread_t thread;
	int count = 0;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16384);
	while (count < 10000 && pthread_create(&thread, &small, wait_for_ever, NULL) == 0)
		count++;
	printf("threads %d\n", count);
}

/* Calls that had holes in kernels. Their arguments are garbage: EINVAL means that the filter allows the call. */
static void attack_kernel(void)
{
	const struct {
		const char *name;
		long number;
	} calls[] = {
		{"bpf", SYS_bpf}, {"perf_event_open", SYS_perf_event_open}, {"io_uring_setup", SYS_io_uring_setup},
		{"userfaultfd", SYS_userfaultfd}, {"add_key", SYS_add_key}, {"keyctl", SYS_keyctl},
		{"init_module", SYS_init_module}, {"kexec_load", SYS_kexec_load}, {"open_by_handle_at", SYS_open_by_handle_at},
		{"fsopen", SYS_fsopen}, {"move_mount", SYS_move_mount}, {"pivot_root", SYS_pivot_root}, {"iopl", SYS_iopl},
		{"ioperm", SYS_ioperm}, {"modify_ldt", SYS_modify_ldt}, {"vmsplice", SYS_vmsplice}, {"splice", SYS_splice},
		{"personality", SYS_personality}, {"shmget", SYS_shmget}, {"mq_open", SYS_mq_open}, {"syslog", SYS_syslog},
		{"clone3", SYS_clone3}, {"memfd_create", SYS_memfd_create}, {"fanotify_init", SYS_fanotify_init},
		{"inotify_init1", SYS_inotify_init1}, {"kcmp", SYS_kcmp}, {"swapon", SYS_swapon}, {"quotactl", SYS_quotactl},
	};
	char name[64];
	for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
		snprintf(name, sizeof name, "kernel:%s", calls[at].name);
		errno = 0;
		long result = syscall(calls[at].number, -1L, -1L, -1L, -1L, -1L, -1L);
		say(name, result < 0 && errno == ENOSYS ? -1 : 0);
	}
}

int main(int count, char **words)
{
	if (count < 7)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	victim_dir = words[1];
	victim = atoi(words[2]);
	victim_netns = words[3];
	state_dir = words[4];
	admin_socket = words[5];
	abstract_socket = words[6];
	printf("uid %d euid %d gid %d\n", getuid(), geteuid(), getgid());
	attack_files();
	attack_network();
	attack_processes();
	if (count == 7) {
		change_files();
		gain_privileges();
		attack_kernel();
		count_threads();
	}
	puts("end");
	return 0;
}
