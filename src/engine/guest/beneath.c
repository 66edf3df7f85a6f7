/* Paths inside trees that a container may change at any time. openat2 keeps them from leading out. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_in(int root, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOCTTY),
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    if (flags & O_PATH) how.flags &= (uint64_t)(O_PATH | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW);
    /* EAGAIN: a rename raced with a `..`; openat2(2) says to try again. */
    for (int tries = 0; tries < 128; tries++) {
        fd = syscall(SYS_openat2, root, path[0] ? path : ".", &how, sizeof how);
        if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) break;
    }
    return (int)fd;
}

static CALL(open_beneath)
{
    CALL_START;
    int root;
    int64_t flags, mode;
    const char *path;

    if (!take_fd(ctx, argv[0], &root) || !take_int(ctx, argv[2], 0, INT32_MAX, &flags) ||
        !take_optional_int(ctx, argv[3], 0, 07777, 0644, &mode))
        return JS_EXCEPTION;
    path = take_text(ctx, argv[1]);
    if (!path) return JS_EXCEPTION;
    int fd = open_in(root, path, (int)flags, (mode_t)mode);
    JSValue answer = fd < 0 ? throw_errno(ctx, errno, "open", path) : JS_NewInt32(ctx, fd);
    JS_FreeCString(ctx, path);
    return answer;
}

/* Makes `name` in the directory. A name that another process makes at the same time is not an error. */
static int make_in(int directory, const char *name, mode_t mode)
{
    int made;

    if (mkdirat(directory, name, mode) < 0) return errno == EEXIST ? 0 : -1;
    made = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (made < 0) return -1;
    int result = fchmod(made, mode); /* mkdirat's mode is subject to the umask */
    close(made);
    return result;
}

/* Opens each prefix from the root, so that symlinks and `..` stay inside, and makes missing directories. */
static int make_all_in(int root, const char *path, mode_t mode)
{
    char prefix[PATH_MAX], name[NAME_MAX + 1];
    size_t length = strlen(path), start = 0;
    int current = open_in(root, ".", O_PATH | O_DIRECTORY, 0);

    if (length >= sizeof prefix) {
        if (current >= 0) close(current);
        return errno = ENAMETOOLONG, -1;
    }
    for (size_t i = 0; current >= 0 && i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        size_t name_length = i - start;
        if (name_length > 0) {
            if (name_length > NAME_MAX) {
                close(current);
                return errno = ENAMETOOLONG, -1;
            }
            memcpy(prefix, path, i);
            prefix[i] = '\0';
            memcpy(name, path + start, name_length);
            name[name_length] = '\0';
            int next = open_in(root, prefix, O_PATH | O_DIRECTORY, 0);
            if (next < 0 && errno == ENOENT && make_in(current, name, mode) == 0)
                next = open_in(root, prefix, O_PATH | O_DIRECTORY, 0);
            int error = errno;
            close(current);
            errno = error;
            current = next;
        }
        start = i + 1;
    }
    return current;
}

static CALL(make_directories_beneath)
{
    CALL_START;
    int root;
    int64_t mode;
    const char *path;

    if (!take_fd(ctx, argv[0], &root) || !take_optional_int(ctx, argv[2], 0, 07777, 0755, &mode)) return JS_EXCEPTION;
    path = take_text(ctx, argv[1]);
    if (!path) return JS_EXCEPTION;
    int fd = make_all_in(root, path, (mode_t)mode);
    JSValue answer = fd < 0 ? throw_errno(ctx, errno, "make directories", path) : JS_NewInt32(ctx, fd);
    JS_FreeCString(ctx, path);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("openBeneath", 4, open_beneath),
    JS_CFUNC_DEF("makeDirectoriesBeneath", 3, make_directories_beneath),
};
const struct call_table beneath_calls = {calls, COUNT(calls)};
