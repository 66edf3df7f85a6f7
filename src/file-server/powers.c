/*
 * What the file server may do: as whom it acts, and its jail. It is started as root in namespaces of its own that show it
 * the volume; before it reads its first request it covers what of the volume is the kernel's own, and gives up the rest:
 * capabilities outside of a user namespace of its own, /proc but for its own descriptors, and all system calls but those
 * of a list.
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
/* To act as others: kept always. */
static const uint64_t to_switch = BIT(CAP_SETUID) | BIT(CAP_SETGID);
/* Root's over files, but for what opens more than the volume (DAC_READ_SEARCH by handles, MKNOD). */
static const uint64_t of_root = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID);

/* Of the calling thread; what flushes in others asks for no permission. */
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
 * From here on calls are made as that user: what it makes is its own, a server of a network file system knows it, and
 * root alone has root's capabilities. False with errno set: the call must not be made.
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
 * Which groups a user of the guest has, its kernel alone knows; it has checked them. So what its user and group do not
 * suffice for is tried once more as a member of the files' own groups.
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

/* `{ type, device }`: statfs(2)'s type and the number of the device. */
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

/* What is mounted at a path (bytes that end with NUL), no link followed: a directory of the volume may have become one. */
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

/* A mount of its own, read-only: each bind of what is in it is, too. */
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

/* Mounts an empty directory or file, read-only, over what the descriptor names. */
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

/* Of /proc its own descriptors alone, as the working directory: they are opened by their numbers, and `..` leads to /. */
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

/* The map that gives each user (or group) of ours the same number: `INSIDE OUTSIDE COUNT` by line (user_namespaces(7)). */
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
 * Writes both maps of its parent, once that says that it is in its namespace. /proc, which is not mounted any more then,
 * is its working directory. 0 or an errno, as an exit code.
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
 * Takes /proc away, and the host's capabilities: in a user namespace where all users are, under their own numbers, they
 * count for files and for nothing of the host's.
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

/* A core of 1 byte: none is written to a file, and the kernel runs no program to take it either (core(5), fs/coredump.c). */
static int limit_resources(rlim_t descriptors)
{
    struct rlimit core, files;

    if (getrlimit(RLIMIT_CORE, &core) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0) return -1;
    core.rlim_cur = core.rlim_max = core.rlim_max < 1 ? core.rlim_max : 1;
    files.rlim_cur = files.rlim_max = files.rlim_max < descriptors ? files.rlim_max : descriptors;
    return setrlimit(RLIMIT_CORE, &core) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0 ? -1 : 0;
}

/* Capabilities stay when acting as others, and none can be had by running a program. */
static int keep_powers(void)
{
    const unsigned long bits = SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECUREBITS, bits) < 0) return -1;
    for (int i = 0; i <= last_capability; i++)
        if (prctl(PR_CAPBSET_READ, i) == 1 && prctl(PR_CAPBSET_DROP, i) < 0) return -1;
    return raise_powers();
}

/* Once, before the first request, in the jail or, for tests, without. */
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

/* Before `take_powers`: what needs the host's capabilities. */
static CALL(enter_jail)
{
    CALL_START;
    if (enter_user_namespace() < 0) return throw_errno(ctx, errno, "enter a user namespace", NULL);
    return JS_UNDEFINED;
}

/* In place of `enterJail`, for tests. */
static CALL(stay_outside)
{
    CALL_START;
    if (chdir("/proc/self/fd") < 0) return throw_errno(ctx, errno, "enter", "/proc/self/fd");
    return JS_UNDEFINED;
}

/* From here on only the system calls that the program (of `struct sock_filter`s) allows. */
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
