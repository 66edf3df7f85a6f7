/* Changes attributes of nodes, and extended attributes. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static CALL(change_mode_of_node)
{
    CALL_START;
    char path[fd_path_size];
    int64_t mode;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, 07777, &mode)) return JS_EXCEPTION;
    /* The kernel clears the bit silently for a user who is not a member of the group. */
    const bool is_member = (mode & S_ISGID) && join_groups(&fd, 1);
    const int result = chmod(fd_path(fd, path), (mode_t)mode);
    if (is_member) leave_groups();
    return give_result(ctx, result);
}

static CALL(change_owner_of_node)
{
    CALL_START;
    int64_t uid, gid;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], -1, UINT32_MAX, &uid) || !take_int(ctx, argv[2], -1, UINT32_MAX, &gid))
        return JS_EXCEPTION;
    /* The owner may give a file to one of their groups, which only the guest's kernel knows. */
    const bool is_member = gid != -1 && join_group((gid_t)gid);
    const int result = fchownat(fd, "", (uid_t)uid, (gid_t)gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    if (is_member) leave_groups();
    return give_result(ctx, result);
}

/*
 * A write without CAP_FSETID clears these bits; only the guest's kernel knows whether its process has the capability.
 */
static CALL(clear_set_ids)
{
    CALL_START;
    char path[fd_path_size];
    struct stat found;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (fstat(fd, &found) < 0) return give_error(ctx, errno);
    mode_t cleared = S_ISUID | (found.st_mode & S_IXGRP ? S_ISGID : 0);
    if (!(found.st_mode & cleared)) return JS_NewInt32(ctx, 0);
    return give_result(ctx, chmod(fd_path(fd, path), found.st_mode & 07777 & ~cleared));
}

/* Takes each time as the two numbers of a struct timespec, with UTIME_NOW and UTIME_OMIT as nanoseconds. */
static CALL(set_times_of)
{
    CALL_START;
    int64_t given[4];
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    for (int i = 0; i < 4; i++)
        if (!take_int(ctx, argv[1 + i], i % 2 ? 0 : -(INT64_C(1) << 53), i % 2 ? UTIME_OMIT : INT64_C(1) << 53, &given[i])) return JS_EXCEPTION;
    struct timespec times[2] = {{given[0], given[1]}, {given[2], given[3]}};
    return give_result(ctx, AS_MEMBER(fd, utimensat(fd, "", times, AT_EMPTY_PATH)));
}

static CALL(truncate_node)
{
    CALL_START;
    char path[fd_path_size];
    int64_t size;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT64_C(1) << 53, &size)) return JS_EXCEPTION;
    return give_result(ctx, AS_MEMBER(fd, truncate(fd_path(fd, path), size)));
}

static CALL(truncate_file)
{
    CALL_START;
    int64_t size;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT64_C(1) << 53, &size)) return JS_EXCEPTION;
    return give_result(ctx, ftruncate(fd, size));
}

static CALL(get_attribute)
{
    CALL_START;
    char path[fd_path_size];
    struct place place;
    const char *name;
    uint8_t *out;
    size_t room;

    if (!take_place(ctx, argv, &place) || !take_slice(ctx, argv[3], argv[4], argv[5], &out, &room)) return JS_EXCEPTION;
    name = text_at(place.message, place.length, place.at);
    if (!name) return give_error(ctx, EINVAL);
    return give_result(ctx, AS_MEMBER(place.fd, getxattr(fd_path(place.fd, path), name, out, room)));
}

static CALL(list_attributes)
{
    CALL_START;
    char path[fd_path_size];
    uint8_t *out;
    size_t room;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &out, &room)) return JS_EXCEPTION;
    return give_result(ctx, AS_MEMBER(fd, listxattr(fd_path(fd, path), (char *)out, room)));
}

/* Takes the name and, after it, the value from the message. */
static CALL(set_attribute)
{
    CALL_START;
    char path[fd_path_size];
    struct place place;
    const char *name;
    int64_t size, flags;

    if (!take_place(ctx, argv, &place) || !take_int(ctx, argv[3], 0, UINT32_MAX, &size) || !take_int(ctx, argv[4], 0, UINT32_MAX, &flags))
        return JS_EXCEPTION;
    name = text_at(place.message, place.length, place.at);
    if (!name) return give_error(ctx, EINVAL);
    size_t value_at = place.at + strlen(name) + 1;
    if ((size_t)size > place.length - value_at) return give_error(ctx, EINVAL);
    const uint8_t *value = place.message + value_at;
    return give_result(ctx, AS_MEMBER(place.fd, setxattr(fd_path(place.fd, path), name, value, (size_t)size, (int)flags)));
}

static CALL(remove_attribute)
{
    CALL_START;
    char path[fd_path_size];
    struct place place;
    const char *name;

    if (!take_place(ctx, argv, &place)) return JS_EXCEPTION;
    name = text_at(place.message, place.length, place.at);
    if (!name) return give_error(ctx, EINVAL);
    return give_result(ctx, AS_MEMBER(place.fd, removexattr(fd_path(place.fd, path), name)));
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("changeModeOfNode", 2, change_mode_of_node),
    JS_CFUNC_DEF("changeOwnerOfNode", 3, change_owner_of_node),
    JS_CFUNC_DEF("clearSetIds", 1, clear_set_ids),
    JS_CFUNC_DEF("setTimesOf", 5, set_times_of),
    JS_CFUNC_DEF("truncateNode", 2, truncate_node),
    JS_CFUNC_DEF("truncateFile", 2, truncate_file),
    JS_CFUNC_DEF("getAttribute", 6, get_attribute),
    JS_CFUNC_DEF("listAttributes", 4, list_attributes),
    JS_CFUNC_DEF("setAttribute", 5, set_attribute),
    JS_CFUNC_DEF("removeAttribute", 3, remove_attribute),
};
const struct call_table attribute_calls = {calls, COUNT(calls)};
