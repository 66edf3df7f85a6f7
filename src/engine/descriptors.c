/* File descriptors, always made close-on-exec. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

static JSValue give_fd(JSContext *ctx, int fd, const char *verb, const char *what)
{
    return fd < 0 ? throw_errno(ctx, errno, verb, what) : JS_NewInt32(ctx, fd);
}

static CALL(open_path)
{
    CALL_START;
    int64_t flags, mode;
    const char *path;
    JSValue result;

    if (!take_int(ctx, argv[1], 0, INT32_MAX, &flags) || !take_optional_int(ctx, argv[2], 0, 07777, 0644, &mode))
        return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    result = give_fd(ctx, RETRY(open(path, (int)flags | O_CLOEXEC | O_NOCTTY, (mode_t)mode)), "open", path);
    JS_FreeCString(ctx, path);
    return result;
}

static CALL(close_fd)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (loop_uses(fd)) return throw_errno(ctx, EBADF, "close a descriptor", NULL);
    loop_unwatch(ctx, fd);
    /* EINTR is not retried: Linux has closed the descriptor by then. */
    return close(fd) < 0 && errno != EINTR ? throw_errno(ctx, errno, "close a descriptor", NULL) : JS_UNDEFINED;
}

static JSValue give_transfer(JSContext *ctx, ssize_t bytes, const char *verb)
{
    if (bytes >= 0) return JS_NewInt64(ctx, bytes);
    if (errno == EAGAIN) return JS_NewInt32(ctx, again);
    return throw_errno(ctx, errno, verb, NULL);
}

static CALL(read_fd)
{
    CALL_START;
    int fd;
    uint8_t *bytes;
    size_t length;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &bytes, &length)) return JS_EXCEPTION;
    return give_transfer(ctx, RETRY(read(fd, bytes, length)), "read");
}

static CALL(write_fd)
{
    CALL_START;
    int fd;
    uint8_t *bytes;
    size_t length;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &bytes, &length)) return JS_EXCEPTION;
    return give_transfer(ctx, RETRY(write(fd, bytes, length)), "write");
}

static JSValue give_pair(JSContext *ctx, const int fds[2], const char *first, const char *second)
{
    JSValue pair = JS_NewObject(ctx);

    if (!JS_IsException(pair) && give_int(ctx, pair, first, fds[0]) && give_int(ctx, pair, second, fds[1])) return pair;
    close(fds[0]);
    close(fds[1]);
    JS_FreeValue(ctx, pair);
    return JS_EXCEPTION;
}

static bool set_blocking(int fd, bool is_blocking)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, is_blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0;
}

/* Room in a pipe that we read: what a program writes meanwhile is read in few pieces. The kernel's default is 64 KiB. */
enum { read_pipe_bytes = 256 << 10 };

static CALL(make_pipe)
{
    CALL_START;
    int fds[2];
    const char *ends = take_text(ctx, argv[0]);
    bool both, ok;

    if (!ends) return JS_EXCEPTION;
    both = strcmp(ends, "both") == 0;
    ok = pipe2(fds, O_CLOEXEC) == 0;
    if (ok && (both || strcmp(ends, "read") == 0)) {
        set_blocking(fds[0], false);
        fcntl(fds[0], F_SETPIPE_SZ, read_pipe_bytes); /* if it fails, the pipe works with less */
    }
    if (ok && (both || strcmp(ends, "write") == 0)) set_blocking(fds[1], false);
    JS_FreeCString(ctx, ends);
    return ok ? give_pair(ctx, fds, "read", "write") : throw_errno(ctx, errno, "make a pipe", NULL);
}

static CALL(set_non_blocking)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (!set_blocking(fd, !JS_ToBool(ctx, argv[1]))) return throw_errno(ctx, errno, "change a descriptor", NULL);
    return JS_UNDEFINED;
}

static CALL(duplicate)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    return give_fd(ctx, fcntl(fd, F_DUPFD_CLOEXEC, 3), "duplicate a descriptor", NULL);
}

static CALL(duplicate_to)
{
    CALL_START;
    int fd;
    int64_t target;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, 2, &target)) return JS_EXCEPTION;
    if (RETRY(dup2(fd, (int)target)) < 0) return throw_errno(ctx, errno, "duplicate a descriptor", NULL);
    return JS_UNDEFINED;
}

static CALL(flush)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    return RETRY(fsync(fd)) < 0 ? throw_errno(ctx, errno, "flush a file", NULL) : JS_UNDEFINED;
}

static CALL(seek)
{
    CALL_START;
    int fd;
    int64_t offset;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT64_C(1) << 53, &offset)) return JS_EXCEPTION;
    return lseek(fd, offset, SEEK_SET) < 0 ? throw_errno(ctx, errno, "seek", NULL) : JS_UNDEFINED;
}

static CALL(open_inotify)
{
    CALL_START;
    return give_fd(ctx, inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "watch files", NULL);
}

static CALL(watch_file)
{
    CALL_START;
    int fd;
    const char *path;
    JSValue result;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    path = take_text(ctx, argv[1]);
    if (!path) return JS_EXCEPTION;
    result = give_fd(ctx, inotify_add_watch(fd, path, IN_MODIFY | IN_CLOSE_WRITE | IN_DONT_FOLLOW), "watch", path);
    JS_FreeCString(ctx, path);
    return result;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("open", 3, open_path),
    JS_CFUNC_DEF("close", 1, close_fd),
    JS_CFUNC_DEF("read", 4, read_fd),
    JS_CFUNC_DEF("write", 4, write_fd),
    JS_CFUNC_DEF("pipe", 1, make_pipe),
    JS_CFUNC_DEF("setNonBlocking", 2, set_non_blocking),
    JS_CFUNC_DEF("duplicate", 1, duplicate),
    JS_CFUNC_DEF("duplicateTo", 2, duplicate_to),
    JS_CFUNC_DEF("flush", 1, flush),
    JS_CFUNC_DEF("seek", 2, seek),
    JS_CFUNC_DEF("openInotify", 0, open_inotify),
    JS_CFUNC_DEF("watchFile", 2, watch_file),
};
const struct call_table descriptor_calls = {calls, COUNT(calls)};
