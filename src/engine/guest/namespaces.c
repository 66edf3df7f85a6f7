/* Namespaces and mapped mounts of a pod that has its own users. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool take_pid(JSContext *ctx, JSValueConst value, int64_t *pid)
{
    return take_int(ctx, value, 1, 1 << 22, pid);
}

static CALL(open_process)
{
    CALL_START;
    int64_t pid;
    int fd;

    if (!take_pid(ctx, argv[0], &pid)) return JS_EXCEPTION;
    fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    return fd < 0 ? throw_errno(ctx, errno, "open a process", NULL) : JS_NewInt32(ctx, fd);
}

/* Enters network, IPC and host name namespaces, which keeps the user of the process. */
static CALL(enter_namespaces)
{
    CALL_START;
    int64_t pid;
    int fd, result;

    if (!take_pid(ctx, argv[0], &pid)) return JS_EXCEPTION;
    fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (fd < 0) return throw_errno(ctx, errno, "open a process", NULL);
    result = setns(fd, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ? errno : 0;
    close(fd);
    return result != 0 ? throw_errno(ctx, result, "enter the namespaces of a process", NULL) : JS_UNDEFINED;
}

/* Returns the step that failed, with errno set, or NULL. */
static const char *mount_mapped_at(const char *source, const char *target, int users)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)users};
    const char *step = "clone the mount of";
    int error, tree = (int)syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (tree < 0) return step;
    step = "map the users of";
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0) {
        step = "mount a mapped";
        if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) == 0) step = NULL;
    }
    error = errno;
    close(tree);
    errno = error;
    return step;
}

static CALL(mount_mapped)
{
    CALL_START;
    char users_path[64];
    const char *source = take_text(ctx, argv[0]), *target = source ? take_text(ctx, argv[1]) : NULL;
    int64_t pid;
    JSValue answer = JS_EXCEPTION;

    if (target && take_pid(ctx, argv[2], &pid)) {
        snprintf(users_path, sizeof users_path, "/proc/%d/ns/user", (int)pid);
        int users = open(users_path, O_RDONLY | O_CLOEXEC);
        const char *failed = users < 0 ? "open the users for" : mount_mapped_at(source, target, users);
        answer = failed ? throw_errno(ctx, errno, failed, source) : JS_UNDEFINED;
        if (users >= 0) close(users);
    }
    if (target) JS_FreeCString(ctx, target);
    if (source) JS_FreeCString(ctx, source);
    return answer;
}

/*
 * Writes as another user: parts of /proc/sys check the user and not the capabilities (kernel, ipc/ipc_sysctl.c). The
 * saved user stays root, and returning to it restores the capabilities (capabilities(7)).
 */
static CALL(write_existing_as)
{
    CALL_START;
    const char *path = take_text(ctx, argv[0]), *text = path ? take_text(ctx, argv[1]) : NULL;
    int64_t uid;
    JSValue answer = JS_EXCEPTION;

    if (text && take_int(ctx, argv[2], 0, UINT32_MAX - 1, &uid)) {
        int error = syscall(SYS_setresuid, -1, (uid_t)uid, -1) < 0 ? errno : 0;
        if (error == 0) {
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            if (fd < 0 || write(fd, text, strlen(text)) < 0) error = errno;
            if (fd >= 0) close(fd);
            if (syscall(SYS_setresuid, -1, 0, -1) < 0) error = errno;
        }
        answer = error != 0 ? throw_errno(ctx, error, "write to", path) : JS_UNDEFINED;
    }
    if (text) JS_FreeCString(ctx, text);
    if (path) JS_FreeCString(ctx, path);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("openProcess", 1, open_process),
    JS_CFUNC_DEF("enterNamespaces", 1, enter_namespaces),
    JS_CFUNC_DEF("mountMapped", 3, mount_mapped),
    JS_CFUNC_DEF("writeExistingAs", 3, write_existing_as),
};
const struct call_table namespace_calls = {calls, COUNT(calls)};
