/* Reads names and values of messages, and answers. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

JSValue give_result(JSContext *ctx, int64_t result)
{
    return JS_NewInt64(ctx, result < 0 ? -errno : result);
}

JSValue give_error(JSContext *ctx, int error)
{
    return JS_NewInt32(ctx, -error);
}

const char *fd_path(int fd, char path[fd_path_size])
{
    snprintf(path, fd_path_size, "%d", fd);
    return path;
}

const char *text_at(const uint8_t *message, size_t length, size_t at)
{
    return at < length && memchr(message + at, 0, length - at) ? (const char *)message + at : NULL;
}

const char *name_at(const uint8_t *message, size_t length, size_t at)
{
    const char *name = text_at(message, length, at);

    if (!name || name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return errno = EINVAL, NULL;
    if (strlen(name) > NAME_MAX) return errno = ENAMETOOLONG, NULL;
    return name;
}

bool take_place(JSContext *ctx, JSValueConst *argv, struct place *place)
{
    int64_t at;

    if (!take_fd(ctx, argv[0], &place->fd) || !take_bytes(ctx, argv[1], &place->message, &place->length) ||
        !take_int(ctx, argv[2], 0, (int64_t)place->length, &at))
        return false;
    place->at = (size_t)at;
    return true;
}

bool has_room(JSContext *ctx, const struct place *place, size_t size)
{
    if (size <= place->length - place->at) return true;
    JS_ThrowRangeError(ctx, "Cannot use a message: no room at its end");
    return false;
}
