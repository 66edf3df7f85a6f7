/*
 * System calls of the file server, which serves a tree of the host to a guest over FUSE. A *node* is an O_PATH
 * descriptor. Names, 64-bit offsets and FUSE structures are read from and written to messages in place. A name must be
 * one component, without `/` and neither `.` nor `..`, so that no path leads out of the tree. These calls return a
 * negative errno instead of throwing: to a file server, an error is a reply like others.
 */
#ifndef PODVM_MESSAGES_H
#define PODVM_MESSAGES_H

#include "file-server.h"

enum { fd_path_size = 16 };

/* A result, or the negative errno. */
JSValue give_result(JSContext *ctx, int64_t result);
JSValue give_error(JSContext *ctx, int error);

/* Path of a node for calls that take no O_PATH descriptor: the working directory is /proc/self/fd. */
const char *fd_path(int fd, char path[fd_path_size]);

/* Makes a call on `fd`, and again as a member of its group if the user may not make it (`join_groups`). */
#define AS_MEMBER(fd, call) AS_MEMBER_OF_BOTH(fd, -1, call)
#define AS_MEMBER_OF_BOTH(first, second, call)                                                                        \
    __extension__({                                                                                                    \
        const int both_fds[2] = {first, second};                                                                       \
        int64_t member_result = call;                                                                                  \
        if (member_result < 0 && errno == EACCES && join_groups(both_fds, both_fds[1] < 0 ? 1 : 2)) {                   \
            member_result = call;                                                                                      \
            leave_groups();                                                                                            \
        }                                                                                                              \
        member_result;                                                                                                 \
    })

/* A text in the message; NULL if it does not end there. */
const char *text_at(const uint8_t *message, size_t length, size_t at);
/* A text that is a valid name in a directory; NULL with errno set. */
const char *name_at(const uint8_t *message, size_t length, size_t at);

/* First arguments of most calls: a descriptor, a message, an offset in it. */
struct place {
    int fd;
    uint8_t *message;
    size_t length, at;
};

bool take_place(JSContext *ctx, JSValueConst *argv, struct place *place);
/* Whether the place has room for `size` bytes; throws a RangeError if not. */
bool has_room(JSContext *ctx, const struct place *place, size_t size);

#define TAKE_NAME(place, name)                                                   \
    struct place place;                                                          \
    const char *name;                                                            \
    if (!take_place(ctx, argv, &place)) return JS_EXCEPTION;                     \
    name = name_at(place.message, place.length, place.at);                       \
    if (!name) return give_error(ctx, errno)

#endif
