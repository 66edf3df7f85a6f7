/* Opens files, and moves their bytes. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

/* Internal flag of the kernel for open(2): the file is opened to be run. */
enum { to_be_run = 040 };

/* Opens files and directories only: opening a device, FIFO or socket of the host can have any effect. */
static int open_as_it_is(int fd, int flags)
{
    char path[fd_path_size];
    struct stat found;

    if (fstat(fd, &found) < 0) return -1;
    if (!S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode)) return errno = EACCES, -1;
    return open(fd_path(fd, path), flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

/* Opens a file for a user who may open it although its mode forbids it. */
static int open_as_root(int fd, int flags)
{
    if (raise_powers() < 0) return -1;
    const int result = open_as_it_is(fd, flags), error = errno;
    if (settle_powers() < 0) _exit(70);
    return errno = error, result;
}

/* Opens a program that the user may run but not read: the kernel that runs it reads it. */
static int open_to_run(int fd)
{
    char path[fd_path_size];

    if (AS_MEMBER(fd, faccessat(AT_FDCWD, fd_path(fd, path), X_OK, AT_EACCESS)) < 0) return -1;
    return open_as_root(fd, O_RDONLY);
}

static CALL(open_file)
{
    CALL_START;
    int64_t flags;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT32_MAX, &flags)) return JS_EXCEPTION;
    const int asked = (int)flags & ~to_be_run;
    int64_t result = AS_MEMBER(fd, open_as_it_is(fd, asked));
    if (result < 0 && errno == EACCES && asked == O_RDONLY && (flags & to_be_run)) result = open_to_run(fd);
    return give_result(ctx, result);
}

/* Opens an open file again with the same access: its mode or user may have changed since. */
static CALL(reopen_file)
{
    CALL_START;
    int64_t access_mode;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, O_ACCMODE, &access_mode)) return JS_EXCEPTION;
    return give_result(ctx, open_as_root(fd, (int)access_mode));
}

/* Reads or writes bytes at an offset. */
static JSValue move_bytes(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int is_write)
{
    CALL_START;
    uint8_t *bytes;
    size_t length;
    int64_t offset;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &bytes, &length) ||
        !take_int(ctx, argv[4], 0, INT64_C(1) << 53, &offset))
        return JS_EXCEPTION;
    return give_result(ctx, is_write ? RETRY(pwrite(fd, bytes, length, offset)) : RETRY(pread(fd, bytes, length, offset)));
}

/* File systems whose close(2) reports no error that write(2) has not reported. */
static CALL(is_local)
{
    CALL_START;
    static const unsigned long local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC};
    struct statfs found;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (fstatfs(fd, &found) < 0) return JS_FALSE;
    for (int i = 0; i < COUNT(local); i++)
        if ((unsigned long)found.f_type == local[i]) return JS_TRUE;
    return JS_FALSE;
}

static CALL(close_one)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    return give_result(ctx, close(dup(fd)));
}

static CALL(allocate)
{
    CALL_START;
    int64_t mode, offset, length;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT32_MAX, &mode) ||
        !take_int(ctx, argv[2], 0, INT64_C(1) << 53, &offset) || !take_int(ctx, argv[3], 0, INT64_C(1) << 53, &length))
        return JS_EXCEPTION;
    return give_result(ctx, RETRY(fallocate(fd, (int)mode, offset, length)));
}

static CALL(seek_from)
{
    CALL_START;
    int64_t offset, whence;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT64_C(1) << 53, &offset) || !take_int(ctx, argv[2], 0, SEEK_HOLE, &whence))
        return JS_EXCEPTION;
    return give_result(ctx, lseek(fd, offset, (int)whence));
}

static CALL(copy_between)
{
    CALL_START;
    int64_t from_offset, to_offset, length;
    int from, to;

    if (!take_fd(ctx, argv[0], &from) || !take_int(ctx, argv[1], 0, INT64_C(1) << 53, &from_offset) ||
        !take_fd(ctx, argv[2], &to) || !take_int(ctx, argv[3], 0, INT64_C(1) << 53, &to_offset) ||
        !take_int(ctx, argv[4], 0, INT64_C(1) << 53, &length))
        return JS_EXCEPTION;
    return give_result(ctx, copy_file_range(from, &from_offset, to, &to_offset, (size_t)length, 0));
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("openFile", 2, open_file),
    JS_CFUNC_DEF("reopenFile", 2, reopen_file),
    JS_CFUNC_MAGIC_DEF("readAt", 5, move_bytes, false),
    JS_CFUNC_MAGIC_DEF("writeAt", 5, move_bytes, true),
    JS_CFUNC_DEF("isLocal", 1, is_local),
    JS_CFUNC_DEF("closeOne", 1, close_one),
    JS_CFUNC_DEF("allocate", 4, allocate),
    JS_CFUNC_DEF("seekFrom", 3, seek_from),
    JS_CFUNC_DEF("copyBetween", 5, copy_between),
};
const struct call_table open_file_calls = {calls, COUNT(calls)};
