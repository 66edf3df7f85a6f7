/* Files by path. beneath.c has the calls for trees that a container may write to. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads a file of unknown size (procfs says 0). NULL with errno set: EFBIG above `max` bytes. */
static uint8_t *read_all(const char *path, size_t max, size_t *length)
{
    size_t room = 4096, used = 0;
    uint8_t *bytes = NULL, *more;
    int fd = RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)), error = 0;

    if (fd < 0) return NULL;
    for (;;) {
        if (!bytes || used == room) {
            if (bytes) room *= 2;
            more = realloc(bytes, room);
            if (!more) { error = ENOMEM; break; }
            bytes = more;
        }
        ssize_t got = RETRY(read(fd, bytes + used, room - used));
        if (got < 0) error = errno;
        if (got <= 0) break;
        used += (size_t)got;
        if (used > max) { error = EFBIG; break; }
    }
    close(fd);
    if (error) {
        free(bytes);
        errno = error;
        return NULL;
    }
    *length = used;
    return bytes;
}

static JSValue read_file(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int as_text)
{
    CALL_START;
    int64_t max;
    size_t length = 0;
    const char *path;
    uint8_t *bytes;
    JSValue result;

    if (!take_int(ctx, argv[1], 0, 64 << 20, &max)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    bytes = read_all(path, (size_t)max, &length);
    if (!bytes) result = throw_errno(ctx, errno, "read", path);
    else result = as_text ? give_text(ctx, (const char *)bytes, length) : give_bytes(ctx, bytes, length);
    free(bytes);
    JS_FreeCString(ctx, path);
    return result;
}

static int write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t done = RETRY(write(fd, bytes, length));
        if (done < 0) return -1;
        bytes += done;
        length -= (size_t)done;
    }
    return 0;
}

/* Makes one write to a file that exists, or writes a new file. A failing close is a failing write. */
static int write_path(const char *path, const uint8_t *bytes, size_t length, int64_t mode)
{
    bool is_new = mode >= 0;
    int how = is_new ? O_CREAT | O_TRUNC : O_NONBLOCK; /* a FIFO that has no reader is an error */
    int fd = RETRY(open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | how, (mode_t)(is_new ? mode : 0)));
    int result, error;

    if (fd < 0) return -1;
    if (is_new) result = fchmod(fd, (mode_t)mode) < 0 ? -1 : write_all(fd, bytes, length);
    else result = RETRY(write(fd, bytes, length)) == (ssize_t)length ? 0 : -1;
    error = errno;
    if (close(fd) < 0 && errno != EINTR && result == 0) return -1;
    errno = error;
    return result;
}

static JSValue write_file(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int existing)
{
    CALL_START;
    int64_t mode = -1;
    uint8_t *bytes = NULL;
    size_t length;
    const char *path, *text = NULL;
    JSValue answer = JS_EXCEPTION;

    if (!existing && !take_optional_int(ctx, argv[2], 0, 07777, 0644, &mode)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    if (JS_IsString(argv[1])) {
        text = JS_ToCStringLen(ctx, &length, argv[1]);
        bytes = (uint8_t *)(uintptr_t)text; /* read only */
    }
    if (text || (!JS_IsString(argv[1]) && take_bytes(ctx, argv[1], &bytes, &length)))
        answer = write_path(path, bytes, length, mode) < 0 ? throw_errno(ctx, errno, "write", path) : JS_UNDEFINED;
    if (text) JS_FreeCString(ctx, text);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(read_link)
{
    CALL_START;
    char target[PATH_MAX];
    const char *path = take_text(ctx, argv[0]);
    ssize_t length;
    JSValue answer;

    if (!path) return JS_EXCEPTION;
    length = readlink(path, target, sizeof target);
    answer = length < 0 ? throw_errno(ctx, errno, "read link", path) : give_text(ctx, target, (size_t)length);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(change_owner)
{
    CALL_START;
    int64_t uid, gid;
    const char *path;

    if (!take_int(ctx, argv[1], -1, UINT32_MAX - 1, &uid) || !take_int(ctx, argv[2], -1, UINT32_MAX - 1, &gid)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    JSValue answer = lchown(path, (uid_t)uid, (gid_t)gid) < 0 ? throw_errno(ctx, errno, "change the owner of", path) : JS_UNDEFINED;
    JS_FreeCString(ctx, path);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_MAGIC_DEF("readFile", 2, read_file, false),
    JS_CFUNC_MAGIC_DEF("readText", 2, read_file, true),
    JS_CFUNC_MAGIC_DEF("writeFile", 3, write_file, false),
    JS_CFUNC_MAGIC_DEF("writeExisting", 2, write_file, true),
    JS_CFUNC_DEF("readLink", 1, read_link),
    JS_CFUNC_DEF("changeOwner", 3, change_owner),
};
const struct call_table file_calls = {calls, COUNT(calls)};
