/* Locks of ranges by open file description, as in struct fuse_file_lock. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/file.h>

static struct flock range_of(const struct fuse_file_lock *asked)
{
    uint64_t last = asked->end > INT64_MAX ? INT64_MAX : asked->end;

    return (struct flock){
        .l_type = (short)asked->type,
        .l_whence = SEEK_SET,
        .l_start = (off_t)asked->start,
        .l_len = last == INT64_MAX ? 0 : (off_t)(last - asked->start + 1),
    };
}

static bool take_lock(JSContext *ctx, JSValueConst *argv, struct place *place, struct fuse_file_lock *asked)
{
    if (!take_place(ctx, argv, place) || !has_room(ctx, place, sizeof *asked)) return false;
    memcpy(asked, place->message + place->at, sizeof *asked);
    return true;
}

static bool is_range(const struct fuse_file_lock *asked)
{
    return asked->start <= INT64_MAX && asked->end >= asked->start;
}

static CALL(lock_range)
{
    CALL_START;
    struct place place;
    struct fuse_file_lock asked;

    if (!take_lock(ctx, argv, &place, &asked)) return JS_EXCEPTION;
    if (!is_range(&asked)) return give_error(ctx, EINVAL);
    struct flock range = range_of(&asked);
    return give_result(ctx, fcntl(place.fd, F_OFD_SETLK, &range));
}

/* Writes the lock that conflicts, without its process, or one of type F_UNLCK. */
static CALL(test_lock)
{
    CALL_START;
    struct place place;
    struct fuse_file_lock asked;

    if (!take_lock(ctx, argv, &place, &asked)) return JS_EXCEPTION;
    if (!is_range(&asked)) return give_error(ctx, EINVAL);
    struct flock range = range_of(&asked);
    if (fcntl(place.fd, F_OFD_GETLK, &range) < 0) return give_error(ctx, errno);
    asked.type = (uint32_t)range.l_type;
    asked.pid = 0;
    if (range.l_type != F_UNLCK) {
        asked.start = (uint64_t)range.l_start;
        asked.end = range.l_len == 0 ? INT64_MAX : (uint64_t)(range.l_start + range.l_len - 1);
    }
    memcpy(place.message + place.at, &asked, sizeof asked);
    return JS_NewInt32(ctx, 0);
}

static CALL(lock_file)
{
    CALL_START;
    int64_t type;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, F_UNLCK, &type)) return JS_EXCEPTION;
    return give_result(ctx, flock(fd, LOCK_NB | (type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN)));
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("lockRange", 3, lock_range),
    JS_CFUNC_DEF("testLock", 3, test_lock),
    JS_CFUNC_DEF("lockFile", 2, lock_file),
};
const struct call_table lock_calls = {calls, COUNT(calls)};
