/*
 * Rights of the file server: the user it acts as, and its jail. It starts as root in namespaces that show it the
 * volume. Before it reads its first request it covers the kernel's file systems in the volume and gives up
 * capabilities outside of its own user namespace, /proc except its own descriptors, and all system calls that are not
 * on a list.
 */
#define _GNU_SOURCE
#include "file-server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { last_capability = 63 };

#define BIT(capability) (UINT64_C(1) << (capability))
/* Capabilities to act as other users, always kept. */
static const uint64_t to_switch = BIT(CAP_SETUID) | BIT(CAP_SETGID);
/* Root's capabilities for files, without those that open more than the volume (DAC_READ_SEARCH by handles, MKNOD). */
static const uint64_t of_root = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID);

/* Sets those of the calling thread; threads that flush need none. */
static int set_capabilities(uint64_t permitted, uint64_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {
        {.permitted = (uint32_t)permitted, .effective = (uint32_t)effective},
        {.permitted = (uint32_t)(permitted >> 32), .effective = (uint32_t)(effective >> 32)},
    };

    return (int)syscall(SYS_capset, &header, sets);
}

/* Acting as others -------------------------------------------------------------------------------------------------- */

static uid_t actor;

int raise_powers(void)
{
    return set_capabilities(to_switch | of_root, to_switch | of_root);
}

int settle_powers(void)
{
    return set_capabilities(to_switch | of_root, actor == 0 ? to_switch | of_root : to_switch);
}

/*
 * Makes later calls as that user: it owns the files it makes, a server of a network file system knows it, and only root
 * has root's capabilities. False with errno set: the call must not be made.
 */
static bool become(uid_t uid, gid_t gid)
{
    setfsgid(gid);
    setfsuid(uid);
    if ((uid_t)setfsuid((uid_t)-1) != uid || (gid_t)setfsgid((gid_t)-1) != gid) return errno = EPERM, false;
    actor = uid;
    if (settle_powers() < 0) return false;
    return prctl(PR_SET_DUMPABLE, 0) == 0; /* a change of user sets it to fs.suid_dumpable (credentials(7)) */
}

static CALL(act_as)
{
    CALL_START;
    int64_t uid, gid;

    if (!take_int(ctx, argv[0], 0, UINT32_MAX - 1, &uid) || !take_int(ctx, argv[1], 0, UINT32_MAX - 1, &gid)) return JS_EXCEPTION;
    if (!become((uid_t)uid, (gid_t)gid)) return throw_errno(ctx, errno, "act as another user", NULL);
    return JS_UNDEFINED;
}

/*
 * Joins the groups of the files. Only the guest's kernel knows a user's groups, and it has checked them, so a call that
 * user and group may not make is tried again as a member of the files' groups.
 */
bool join_groups(const int *fds, int count)
{
    gid_t groups[2];
    struct stat found;

    if (actor == 0 || count > COUNT(groups)) return false;
    for (int i = 0; i < count; i++) {
        if (fstat(fds[i], &found) < 0) return false;
        groups[i] = found.st_gid;
    }
    return syscall(SYS_setgroups, count, groups) == 0;
}

bool join_group(gid_t group)
{
    return actor != 0 && syscall(SYS_setgroups, 1, &group) == 0;
}

void leave_groups(void)
{
    int error = errno;

    if (actor != 0 && syscall(SYS_setgroups, 0, NULL) < 0) _exit(70);
    errno = error;
}

/* File systems ------------------------------------------------------------------------------------------------------ */

/* Returns `{ type, device }`: the type of statfs(2) and the number of the device. */
static CALL(file_system_of)
{
    CALL_START;
    struct stat found;
    struct statfs system;
    char device[32];
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (fstat(fd, &found) < 0 || fstatfs(fd, &system) < 0) return JS_NewInt32(ctx, -errno);
    JSValue result = JS_NewObject(ctx);
    int length = snprintf(device, sizeof device, "%u:%u", major(found.st_dev), minor(found.st_dev));
    if (!JS_IsException(result) && give_int(ctx, result, "type", (int64_t)(uint32_t)system.f_type) &&
        JS_SetPropertyStr(ctx, result, "device", give_text(ctx, device, (size_t)length)) >= 0)
        return result;
    JS_FreeValue(ctx, result);
    return JS_EXCEPTION;
}

/*
 * Opens the mount at a path (bytes that end with NUL). Follows no link, which the volume may by now have in its place.
 */
static CALL(open_mount_point)
{
    CALL_START;
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    uint8_t *path;
    size_t length;

    if (!take_bytes(ctx, argv[0], &path, &length)) return JS_EXCEPTION;
    if (length == 0 || path[length - 1] != '\0') return JS_NewInt32(ctx, -EINVAL);
    long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return JS_NewInt64(ctx, fd < 0 ? -errno : fd);
}

static const char empty_directory[] = "/nothing/directory", empty_file[] = "/nothing/file";

/* Makes the covers on a read-only mount, so that their bind mounts are read-only too. */
static int make_covers(void)
{
    int file;

    if (mkdir("/nothing", 0755) < 0) return errno == EEXIST ? 0 : -1;
    file = mkdir(empty_directory, 0555) < 0 ? -1 : open(empty_file, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
    if (file < 0) return -1;
    close(file);
    if (mount("/nothing", "/nothing", NULL, MS_BIND, NULL) < 0) return -1;
    return mount(NULL, "/nothing", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* Mounts an empty, read-only directory or file over the file that the descriptor names. */
static CALL(cover)
{
    CALL_START;
    char path[32];
    struct stat found;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fstat(fd, &found) < 0 || make_covers() < 0 ||
        mount(S_ISDIR(found.st_mode) ? empty_directory : empty_file, path, NULL, MS_BIND, NULL) < 0)
        return throw_errno(ctx, errno, "cover a mount of the kernel's", NULL);
    return JS_UNDEFINED;
}

/* The jail ---------------------------------------------------------------------------------------------------------- */

/* Keeps only its own descriptors of /proc, as the working directory: they are opened by number, and `..` is /. */
static int keep_own_descriptors(void)
{
    if (mkdir("/descriptors", 0700) < 0 || mount("/proc/self/fd", "/descriptors", NULL, MS_BIND, NULL) < 0) return -1;
    if (umount2("/proc", MNT_DETACH) < 0 || chdir("/descriptors") < 0) return -1;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), error;
    ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));

    error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return written < 0 ? -1 : 0;
}

/* Writes a map that keeps the number of each user or group: lines of `INSIDE OUTSIDE COUNT` (user_namespaces(7)). */
static int same_users(const char *path, char *text, size_t room)
{
    unsigned inside, outside, count;
    size_t used = 0;
    FILE *file = fopen(path, "re");

    if (!file) return -1;
    while (fscanf(file, "%u %u %u", &inside, &outside, &count) == 3 && used < room)
        used += (size_t)snprintf(text + used, room - used, "%u %u %u\n", inside, inside, count);
    fclose(file);
    return used > 0 && used < room ? 0 : (errno = EINVAL, -1);
}

/*
 * Writes both maps of the parent when the parent has entered its namespace. The working directory is /proc, which is no
 * longer mounted then. Returns 0 or an errno, for the exit code.
 */
static int map_users_of(pid_t pid, int entered)
{
    static const char *const maps[] = {"uid_map", "gid_map"};
    char path[64], text[4096], byte;

    if (RETRY(read(entered, &byte, 1)) != 1) return EPIPE;
    for (int i = 0; i < COUNT(maps); i++) {
        snprintf(path, sizeof path, "self/%s", maps[i]);
        if (same_users(path, text, sizeof text) < 0) return errno;
        snprintf(path, sizeof path, "%d/%s", pid, maps[i]);
        if (write_file(path, text) < 0) return errno;
    }
    return 0;
}

/*
 * Removes /proc and the host's capabilities: in a user namespace that maps all users to their own numbers, capabilities
 * apply to files and to nothing else of the host.
 */
static int enter_user_namespace(void)
{
    int entered[2], status;
    pid_t self = getpid(), child;

    if (chdir("/proc") < 0 || pipe2(entered, O_CLOEXEC) < 0) return -1;
    child = fork();
    if (child == 0) {
        close(entered[1]);
        _exit(map_users_of(self, entered[0]));
    }
    int error = child < 0 || keep_own_descriptors() < 0 || unshare(CLONE_NEWUSER) < 0 || write(entered[1], "", 1) < 0 ? errno : 0;
    close(entered[0]);
    close(entered[1]);
    if (child > 0 && RETRY(waitpid(child, &status, 0)) == child && error == 0) error = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    return error == 0 ? 0 : (errno = error, -1);
}

/* Limits a core to 1 byte: the kernel then neither writes a file nor runs a program for it (core(5), fs/coredump.c). */
static int limit_resources(rlim_t descriptors)
{
    struct rlimit core, files;

    if (getrlimit(RLIMIT_CORE, &core) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0) return -1;
    core.rlim_cur = core.rlim_max = core.rlim_max < 1 ? core.rlim_max : 1;
    files.rlim_cur = files.rlim_max = files.rlim_max < descriptors ? files.rlim_max : descriptors;
    return setrlimit(RLIMIT_CORE, &core) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0 ? -1 : 0;
}

/* Keeps capabilities when acting as others, and makes sure that running a program gives none. */
static int keep_powers(void)
{
    const unsigned long bits = SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECUREBITS, bits) < 0) return -1;
    for (int i = 0; i <= last_capability; i++)
        if (prctl(PR_CAPBSET_READ, i) == 1 && prctl(PR_CAPBSET_DROP, i) < 0) return -1;
    return raise_powers();
}

/* Called once, before the first request, either in the jail or, in tests, outside it. */
static CALL(take_powers)
{
    CALL_START;
    int64_t descriptors;

    if (!take_int(ctx, argv[0], 64, max_fds, &descriptors)) return JS_EXCEPTION;
    umask(0);
    if (syscall(SYS_setgroups, 0, NULL) < 0 || limit_resources((rlim_t)descriptors) < 0 || keep_powers() < 0)
        return throw_errno(ctx, errno, "give up powers", NULL);
    if (prctl(PR_SET_DUMPABLE, 0) < 0) return throw_errno(ctx, errno, "forbid dumps", NULL);
    return JS_UNDEFINED;
}

/* Called before `take_powers`: it needs the host's capabilities. */
static CALL(enter_jail)
{
    CALL_START;
    if (enter_user_namespace() < 0) return throw_errno(ctx, errno, "enter a user namespace", NULL);
    return JS_UNDEFINED;
}

/* Replaces `enterJail` in tests. */
static CALL(stay_outside)
{
    CALL_START;
    if (chdir("/proc/self/fd") < 0) return throw_errno(ctx, errno, "enter", "/proc/self/fd");
    return JS_UNDEFINED;
}

/* Restricts system calls to those that the program (of `struct sock_filter`s) allows. */
static CALL(filter_calls)
{
    CALL_START;
    uint8_t *bytes;
    size_t length;

    if (!take_bytes(ctx, argv[0], &bytes, &length)) return JS_EXCEPTION;
    struct sock_fprog program = {.len = (unsigned short)(length / sizeof(struct sock_filter)), .filter = (void *)bytes};
    if (length == 0 || length % sizeof(struct sock_filter) != 0 || length / sizeof(struct sock_filter) > BPF_MAXINSNS)
        return throw_errno(ctx, EINVAL, "filter system calls", NULL);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) return throw_errno(ctx, errno, "filter system calls", NULL);
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("actAs", 2, act_as),
    JS_CFUNC_DEF("fileSystemOf", 1, file_system_of),
    JS_CFUNC_DEF("openMountPoint", 1, open_mount_point),
    JS_CFUNC_DEF("cover", 1, cover),
    JS_CFUNC_DEF("enterJail", 0, enter_jail),
    JS_CFUNC_DEF("stayOutside", 0, stay_outside),
    JS_CFUNC_DEF("takePowers", 1, take_powers),
    JS_CFUNC_DEF("filterCalls", 1, filter_calls),
};
const struct call_table power_calls = {calls, COUNT(calls)};
