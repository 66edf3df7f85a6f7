/*
 * Attacks of a file server that a guest has taken over. Enters the namespaces of a real one, with its users,
 * capabilities and list of system calls, tries each attack once, and prints `NAME RESULT` for it: `done` if it worked,
 * else the reason. It writes nothing to the files that it opens.
 *
 *   fallen-files SERVER_PID FILTER_FILE SHARED_DIRECTORY HOST_PID [control]
 *
 * `control` stays unconfined and leaves out attacks on the kernel and mounts: the list also runs so, to show that its
 * attacks can succeed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *shared;
static int victim, is_control;

static void say(const char *name, long result)
{
	printf("%s %s\n", name, result >= 0 ? "done" : strerrorname_np(errno));
}

#define TRY(name, attack) (errno = 0, say(name, (long)(attack)))

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static int open_and_close(const char *name, int flags)
{
	int fd = open(name, flags, 0600);
	if (fd >= 0)
		close(fd);
	return fd;
}

static const char *in_share(const char *name)
{
	static char text[4096];
	snprintf(text, sizeof text, "%s/%s", shared, name);
	return text;
}

static int socket_of(int family, int type)
{
	int fd = socket(family, type, 0);
	if (fd >= 0)
		close(fd);
	return fd;
}

static int clones(unsigned long flags)
{
	long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	if (child > 0)
		waitpid((pid_t)child, NULL, 0);
	return child < 0 ? -1 : 0;
}

/* Files of the host's kernel that can be opened for writing, by any name. */
static void attack_switches(void)
{
	static const char *const files[] = {
		"proc/sys/kernel/core_pattern", "proc/sys/kernel/modprobe", "proc/sys/vm/drop_caches",
		"proc/sys/kernel/panic", "proc/sysrq-trigger", "proc/sys/net/ipv4/ip_forward", "proc/1/mem",
		"proc/1/oom_score_adj", "proc/self/mem", "sys/kernel/uevent_helper", "sys/power/state",
		"sys/fs/cgroup/cgroup.procs", "sys/fs/cgroup/memory/cgroup.procs", "sys/fs/cgroup/devices/devices.allow",
		"dev/mem", "dev/kmsg", "dev/null",
	};
	static const char *const roots[] = {"/", "../", "../../", "../../../"};
	char name[300], path[256];

	for (size_t at = 0; at < sizeof files / sizeof *files; at++) {
		for (size_t root = 0; root < sizeof roots / sizeof *roots; root++) {
			snprintf(path, sizeof path, "%s%s", roots[root], files[at]);
			snprintf(name, sizeof name, "write:%s", path);
			TRY(name, open_and_close(path, O_WRONLY));
		}
		snprintf(name, sizeof name, "write-shared:%s", files[at]);
		TRY(name, open_and_close(in_share(files[at]), O_WRONLY));
	}
	TRY("read:/proc/self/status", open_and_close("/proc/self/status", O_RDONLY));
	TRY("read:/proc/1/environ", open_and_close("/proc/1/environ", O_RDONLY));
	TRY("read:/etc/shadow", open_and_close("/etc/shadow", O_RDONLY));
}

static void attack_kernel(void)
{
	static const struct {
		const char *name;
		long number;
	} calls[] = {
		{"bpf", SYS_bpf}, {"perf_event_open", SYS_perf_event_open}, {"io_uring_setup", SYS_io_uring_setup},
		{"userfaultfd", SYS_userfaultfd}, {"add_key", SYS_add_key}, {"keyctl", SYS_keyctl},
		{"init_module", SYS_init_module}, {"kexec_load", SYS_kexec_load}, {"open_by_handle_at", SYS_open_by_handle_at},
		{"name_to_handle_at", SYS_name_to_handle_at}, {"fsopen", SYS_fsopen}, {"move_mount", SYS_move_mount},
		{"open_tree", SYS_open_tree}, {"mount_setattr", SYS_mount_setattr}, {"pivot_root", SYS_pivot_root},
		{"iopl", SYS_iopl}, {"modify_ldt", SYS_modify_ldt}, {"vmsplice", SYS_vmsplice}, {"splice", SYS_splice},
		{"shmget", SYS_shmget}, {"mq_open", SYS_mq_open}, {"syslog", SYS_syslog}, {"clone3", SYS_clone3},
		{"memfd_create", SYS_memfd_create}, {"fanotify_init", SYS_fanotify_init}, {"kcmp", SYS_kcmp},
		{"swapon", SYS_swapon}, {"quotactl", SYS_quotactl}, {"execve", SYS_execve}, {"execveat", SYS_execveat},
		{"ioctl", SYS_ioctl}, {"openat2", SYS_openat2}, {"setuid", SYS_setuid}, {"setresuid", SYS_setresuid},
		{"setresgid", SYS_setresgid}, {"landlock", SYS_landlock_create_ruleset}, {"setrlimit", SYS_prlimit64},
		{"socketpair", SYS_socketpair}, {"connect", SYS_connect}, {"recvmsg", SYS_recvmsg}, {"seccomp", SYS_seccomp},
	};
	char name[64];

	for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
		snprintf(name, sizeof name, "kernel:%s", calls[at].name);
		errno = 0;
		long result = syscall(calls[at].number, -1L, -1L, -1L, -1L, -1L, -1L);
		say(name, result < 0 && errno == ENOSYS ? -1 : 0);
	}
}

static void attack_processes(void)
{
	TRY("signal:host", kill(victim, 0));
	TRY("signal:by-descriptor", syscall(SYS_pidfd_open, victim, 0));
	TRY("trace:host", ptrace(PTRACE_SEIZE, victim, 0, 0));
	TRY("process:fork", clones(0));
	TRY("namespace:user", clones(CLONE_NEWUSER));
	TRY("namespace:mount", clones(CLONE_NEWNS));
	TRY("namespace:unshare-user", is_control ? clones(CLONE_NEWUSER) : unshare(CLONE_NEWUSER));
	TRY("socket:inet", socket_of(AF_INET, SOCK_STREAM));
	TRY("socket:unix", socket_of(AF_UNIX, SOCK_STREAM));
	TRY("socket:netlink", socket_of(AF_NETLINK, SOCK_RAW));
	TRY("socket:alg", socket_of(38, SOCK_SEQPACKET));
	TRY("socket:vsock", socket_of(40, SOCK_STREAM));
}

/* Attacks to leave the volume, or to change its mounts. */
static void attack_mounts(void)
{
	TRY("mount:proc", mount("proc", shared, "proc", 0, NULL));
	TRY("mount:bind", mount("/", shared, NULL, MS_BIND | MS_REC, NULL));
	TRY("mount:uncover", umount2(in_share("proc"), MNT_DETACH));
	TRY("mount:uncover-all", umount2(shared, MNT_DETACH));
	TRY("mount:writable", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
	TRY("mount:chroot", chroot(shared));
	TRY("make-file:/", open_and_close("/evil", O_CREAT | O_WRONLY));
	TRY("make-device", mknod(in_share("evil-device"), S_IFBLK | 0600, makedev(7, 0)));
	TRY("trusted-attribute", setxattr(in_share("."), "trusted.evil", "x", 1, 0));
	TRY("dumpable", is_control ? 0 : prctl(PR_GET_DUMPABLE) == 0 ? (errno = EPERM, -1) : 0);
}

static void join(int pid, const char *kind)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	/* Opens all before it enters any: afterwards there is no /proc. */
	static int kept[16], count;
	kept[count++] = fd;
	if (strcmp(kind, "user") != 0)
		return;
	for (int at = 0; at < count; at++)
		if (setns(kept[at], 0) < 0)
			fail("setns");
	for (int at = 0; at < count; at++)
		close(kept[at]);
}

static unsigned long long status_of(int pid, const char *field)
{
	char path[64], line[256];
	unsigned long long found = 0;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *file = fopen(path, "r");
	if (!file)
		fail(path);
	while (fgets(line, sizeof line, file))
		if (strncmp(line, field, strlen(field)) == 0)
			found = strtoull(line + strlen(field), NULL, 16);
	fclose(file);
	return found;
}

/* Takes the namespaces, capabilities and system call filter of the server, but not its descriptors. */
static void become(int pid, const char *filter_file)
{
	static struct sock_filter filter[4096];
	char path[64];
	int file = open(filter_file, O_RDONLY | O_CLOEXEC);
	ssize_t bytes = file < 0 ? -1 : read(file, filter, sizeof filter);
	if (bytes <= 0)
		fail(filter_file);
	close(file);
	unsigned long long permitted = status_of(pid, "CapPrm:"), bounding = status_of(pid, "CapBnd:");
	snprintf(path, sizeof path, "/proc/%d/cwd", pid);
	int cwd = open(path, O_PATH | O_CLOEXEC);
	if (cwd < 0)
		fail(path);
	static const char *const kinds[] = {"pid", "ipc", "uts", "net", "cgroup", "mnt", "user"};
	for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++)
		join(pid, kinds[at]);
	pid_t child = fork(); /* into the pid namespace */
	if (child != 0) {
		int status;
		waitpid(child, &status, 0);
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
	}
	if (fchdir(cwd) < 0)
		fail("fchdir");
	close(cwd);
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {
		{(uint32_t)permitted, (uint32_t)permitted, 0}, {(uint32_t)(permitted >> 32), (uint32_t)(permitted >> 32), 0}};
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT) < 0)
		fail("securebits");
	for (int capability = 0; capability < 64; capability++)
		if (!(bounding >> capability & 1))
			prctl(PR_CAPBSET_DROP, capability);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &header, sets) < 0)
		fail("capset");
	prctl(PR_SET_DUMPABLE, 0);
	struct sock_fprog program = {.len = (unsigned short)((size_t)bytes / sizeof *filter), .filter = filter};
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		fail("seccomp");
}

int main(int count, char **words)
{
	if (count < 5)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	is_control = count > 5;
	victim = atoi(words[4]);
	shared = words[3];
	if (!is_control)
		become(atoi(words[1]), words[2]);
	attack_switches();
	attack_processes();
	if (!is_control) {
		attack_kernel();
		attack_mounts();
	}
	puts("end");
	return 0;
}
