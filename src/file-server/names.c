/* Makes, names and removes files. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static CALL(create_in)
{
    CALL_START;
    int64_t flags, mode;

    TAKE_NAME(place, name);
    if (!take_int(ctx, argv[3], 0, INT32_MAX, &flags) || !take_int(ctx, argv[4], 0, 07777, &mode)) return JS_EXCEPTION;
    const int given = (int)flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
    return give_result(ctx, AS_MEMBER(place.fd, openat(place.fd, name, given, (mode_t)mode)));
}

static CALL(create_unnamed_in)
{
    CALL_START;
    int64_t flags, mode;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, INT32_MAX, &flags) || !take_int(ctx, argv[2], 0, 07777, &mode))
        return JS_EXCEPTION;
    return give_result(ctx, AS_MEMBER(fd, openat(fd, ".", (int)flags | O_TMPFILE | O_CLOEXEC, (mode_t)mode)));
}

static CALL(make_node_in)
{
    CALL_START;
    int64_t mode, device;

    TAKE_NAME(place, name);
    if (!take_int(ctx, argv[3], 0, UINT16_MAX, &mode) || !take_int(ctx, argv[4], 0, UINT32_MAX, &device)) return JS_EXCEPTION;
    if (S_ISDIR((mode_t)mode)) return give_result(ctx, AS_MEMBER(place.fd, mkdirat(place.fd, name, (mode_t)mode & 07777)));
    const dev_t number = makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    return give_result(ctx, AS_MEMBER(place.fd, mknodat(place.fd, name, (mode_t)mode, number)));
}

/* Takes the name and, after it, the text of the link from the message. */
static CALL(symlink_in)
{
    CALL_START;
    const char *target;

    TAKE_NAME(place, name);
    target = text_at(place.message, place.length, place.at + strlen(name) + 1);
    if (!target) return give_error(ctx, EINVAL);
    return give_result(ctx, AS_MEMBER(place.fd, symlinkat(target, place.fd, name)));
}

static CALL(link_in)
{
    CALL_START;
    char path[fd_path_size];
    int node;

    TAKE_NAME(place, name);
    if (!take_fd(ctx, argv[3], &node)) return JS_EXCEPTION;
    return give_result(ctx, AS_MEMBER_OF_BOTH(place.fd, node, linkat(AT_FDCWD, fd_path(node, path), place.fd, name, AT_SYMLINK_FOLLOW)));
}

static CALL(remove_in)
{
    CALL_START;
    TAKE_NAME(place, name);
    const int how = JS_ToBool(ctx, argv[3]) ? AT_REMOVEDIR : 0;
    return give_result(ctx, AS_MEMBER(place.fd, unlinkat(place.fd, name, how)));
}

/* Takes the old name and, after it, the new one from the message. */
static CALL(rename_in)
{
    CALL_START;
    int64_t flags;
    int target;
    const char *new_name;

    TAKE_NAME(place, name);
    if (!take_fd(ctx, argv[3], &target) || !take_int(ctx, argv[4], 0, UINT32_MAX, &flags)) return JS_EXCEPTION;
    new_name = name_at(place.message, place.length, place.at + strlen(name) + 1);
    if (!new_name) return give_error(ctx, errno);
    return give_result(ctx, AS_MEMBER_OF_BOTH(place.fd, target, renameat2(place.fd, name, target, new_name, (unsigned)flags)));
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("createIn", 5, create_in),
    JS_CFUNC_DEF("createUnnamedIn", 3, create_unnamed_in),
    JS_CFUNC_DEF("makeNodeIn", 5, make_node_in),
    JS_CFUNC_DEF("symlinkIn", 3, symlink_in),
    JS_CFUNC_DEF("linkIn", 4, link_in),
    JS_CFUNC_DEF("removeIn", 4, remove_in),
    JS_CFUNC_DEF("renameIn", 5, rename_in),
};
const struct call_table name_calls = {calls, COUNT(calls)};
