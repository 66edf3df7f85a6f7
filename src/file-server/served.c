/*
 * System calls of the file server, which serves a tree of the host to a guest over FUSE. A *node* is an O_PATH
 * descriptor. Names, 64-bit offsets and FUSE structures are read from and written to messages in place. A name must be
 * one component, without `/` and neither `.` nor `..`, so that no path leads out of the tree. These calls return a
 * negative errno instead of throwing: to a file server, an error is a reply like others.
 */
#define _GNU_SOURCE
#include "file-server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { fd_path_size = 16, max_flushes = 8 };

/* Internal flag of the kernel for open(2): the file is opened to be run. */
enum { to_be_run = 040 };

static JSValue give_result(JSContext *ctx, int64_t result)
{
    return JS_NewInt64(ctx, result < 0 ? -errno : result);
}

static JSValue give_error(JSContext *ctx, int error)
{
    return JS_NewInt32(ctx, -error);
}

/* Path of a node for calls that take no O_PATH descriptor: the working directory is /proc/self/fd. */
static const char *fd_path(int fd, char path[fd_path_size])
{
    snprintf(path, fd_path_size, "%d", fd);
    return path;
}

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
static const char *text_at(const uint8_t *message, size_t length, size_t at)
{
    return at < length && memchr(message + at, 0, length - at) ? (const char *)message + at : NULL;
}

/* A text that is a valid name in a directory; NULL with errno set. */
static const char *name_at(const uint8_t *message, size_t length, size_t at)
{
    const char *name = text_at(message, length, at);

    if (!name || name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return errno = EINVAL, NULL;
    if (strlen(name) > NAME_MAX) return errno = ENAMETOOLONG, NULL;
    return name;
}

/* First arguments of most calls: a descriptor, a message, an offset in it. */
struct place {
    int fd;
    uint8_t *message;
    size_t length, at;
};

static bool take_place(JSContext *ctx, JSValueConst *argv, struct place *place)
{
    int64_t at;

    if (!take_fd(ctx, argv[0], &place->fd) || !take_bytes(ctx, argv[1], &place->message, &place->length) ||
        !take_int(ctx, argv[2], 0, (int64_t)place->length, &at))
        return false;
    place->at = (size_t)at;
    return true;
}

/* Whether the place has room for `size` bytes; throws a RangeError if not. */
static bool has_room(JSContext *ctx, const struct place *place, size_t size)
{
    if (size <= place->length - place->at) return true;
    JS_ThrowRangeError(ctx, "Cannot use a message: no room at its end");
    return false;
}

#define TAKE_NAME(place, name)                                                   \
    struct place place;                                                          \
    const char *name;                                                            \
    if (!take_place(ctx, argv, &place)) return JS_EXCEPTION;                     \
    name = name_at(place.message, place.length, place.at);                       \
    if (!name) return give_error(ctx, errno)

/* Looking ----------------------------------------------------------------------------------------------------------- */

/* Distinguishes devices by Knuth's multiplier, which spreads small numbers over the upper bits. */
static uint64_t inode_number(const struct stat *found, uint64_t home)
{
    return (uint64_t)found->st_ino + ((uint64_t)found->st_dev - home) * UINT64_C(0x9e3779b97f4a7c15);
}

static struct fuse_attr attributes(const struct stat *found, uint64_t home)
{
    return (struct fuse_attr){
        .ino = inode_number(found, home),
        .size = (uint64_t)found->st_size,
        .blocks = (uint64_t)found->st_blocks,
        .atime = (uint64_t)found->st_atim.tv_sec,
        .mtime = (uint64_t)found->st_mtim.tv_sec,
        .ctime = (uint64_t)found->st_ctim.tv_sec,
        .atimensec = (uint32_t)found->st_atim.tv_nsec,
        .mtimensec = (uint32_t)found->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)found->st_ctim.tv_nsec,
        .mode = found->st_mode,
        .nlink = (uint32_t)found->st_nlink,
        .uid = found->st_uid,
        .gid = found->st_gid,
        /* As the kernel's new_encode_dev. */
        .rdev = (minor(found->st_rdev) & 0xff) | major(found->st_rdev) << 8 | (minor(found->st_rdev) & ~0xffu) << 12,
        .blksize = (uint32_t)found->st_blksize,
    };
}

/*
 * Writes a struct fuse_attr and returns the file's identity, unique on the host. Files on the first device (that of the
 * volume) keep their inode numbers; files of devices mounted below get numbers that differ from them.
 */
static JSValue give_look(JSContext *ctx, const struct stat *found, uint8_t *out)
{
    static uint64_t home;
    char identity[40];
    struct fuse_attr written;

    if (home == 0) home = (uint64_t)found->st_dev;
    written = attributes(found, home);
    memcpy(out, &written, sizeof written);
    int length = snprintf(identity, sizeof identity, "%llx:%llx", (unsigned long long)found->st_dev, (unsigned long long)found->st_ino);
    return JS_NewStringLen(ctx, identity, (size_t)length);
}

static CALL(look)
{
    CALL_START;
    struct place out;
    struct stat found;

    if (!take_place(ctx, argv, &out) || !has_room(ctx, &out, sizeof(struct fuse_attr))) return JS_EXCEPTION;
    if (fstatat(out.fd, "", &found, AT_EMPTY_PATH) < 0) return give_error(ctx, errno);
    return give_look(ctx, &found, out.message + out.at);
}

static CALL(look_in)
{
    CALL_START;
    struct place out = {0};
    struct stat found;
    int64_t at;

    TAKE_NAME(place, name);
    if (!take_bytes(ctx, argv[3], &out.message, &out.length) || !take_int(ctx, argv[4], 0, (int64_t)out.length, &at)) return JS_EXCEPTION;
    out.at = (size_t)at;
    if (!has_room(ctx, &out, sizeof(struct fuse_attr))) return JS_EXCEPTION;
    if (AS_MEMBER(place.fd, fstatat(place.fd, name, &found, AT_SYMLINK_NOFOLLOW)) < 0) return give_error(ctx, errno);
    return give_look(ctx, &found, out.message + out.at);
}

static CALL(open_root)
{
    CALL_START;
    const char *path = take_text(ctx, argv[0]);

    if (!path) return JS_EXCEPTION;
    JSValue fd = give_result(ctx, open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    JS_FreeCString(ctx, path);
    return fd;
}

static CALL(open_node)
{
    CALL_START;
    TAKE_NAME(place, name);
    return give_result(ctx, AS_MEMBER(place.fd, openat(place.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)));
}

/* Makes the node of an open file. */
static CALL(node_of)
{
    CALL_START;
    char path[fd_path_size];
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    return give_result(ctx, open(fd_path(fd, path), O_PATH | O_CLOEXEC));
}

static CALL(read_link_of)
{
    CALL_START;
    struct place out;

    if (!take_place(ctx, argv, &out)) return JS_EXCEPTION;
    return give_result(ctx, readlinkat(out.fd, "", (char *)out.message + out.at, out.length - out.at));
}

static CALL(space_of)
{
    CALL_START;
    struct place out;
    struct statfs found;
    struct fuse_kstatfs written = {0};

    if (!take_place(ctx, argv, &out) || !has_room(ctx, &out, sizeof written)) return JS_EXCEPTION;
    if (fstatfs(out.fd, &found) < 0) return give_error(ctx, errno);
    written.blocks = found.f_blocks;
    written.bfree = found.f_bfree;
    written.bavail = found.f_bavail;
    written.files = found.f_files;
    written.ffree = found.f_ffree;
    written.bsize = (uint32_t)found.f_bsize;
    written.namelen = (uint32_t)found.f_namelen;
    written.frsize = (uint32_t)found.f_frsize;
    memcpy(out.message + out.at, &written, sizeof written);
    return JS_NewInt32(ctx, 0);
}

/* Writes struct fuse_dirent entries from the 64-bit offset in the request; at most `length` bytes. */
static CALL(list_node)
{
    CALL_START;
    struct place request;
    uint8_t *out;
    size_t room, used = 0;
    uint64_t offset;
    char entries[16 << 10];

    if (!take_place(ctx, argv, &request) || !has_room(ctx, &request, sizeof offset) ||
        !take_slice(ctx, argv[3], argv[4], argv[5], &out, &room))
        return JS_EXCEPTION;
    memcpy(&offset, request.message + request.at, sizeof offset);
    if (lseek(request.fd, (off_t)offset, SEEK_SET) < 0) return give_error(ctx, errno);
    for (;;) {
        ssize_t got = getdents64(request.fd, entries, sizeof entries);
        if (got < 0 && used == 0) return give_error(ctx, errno);
        if (got <= 0) return JS_NewInt64(ctx, (int64_t)used);
        for (ssize_t i = 0; i < got;) {
            const struct dirent64 *entry = (const void *)(entries + i);
            size_t name_length = strlen(entry->d_name), size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name_length);
            struct fuse_dirent written = {
                .ino = entry->d_ino, .off = (uint64_t)entry->d_off, .namelen = (uint32_t)name_length, .type = entry->d_type};
            if (size > room - used) return JS_NewInt64(ctx, (int64_t)used);
            memset(out + used, 0, size);
            memcpy(out + used, &written, FUSE_NAME_OFFSET);
            memcpy(out + used + FUSE_NAME_OFFSET, entry->d_name, name_length);
            used += size;
            i += entry->d_reclen;
        }
    }
}

/* Making, naming and removing --------------------------------------------------------------------------------------- */

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

/* Attributes -------------------------------------------------------------------------------------------------------- */

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

/* A write without CAP_FSETID clears these bits; the guest's kernel knows whether its process has it. */
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

/* Open files -------------------------------------------------------------------------------------------------------- */

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

static CALL(read_at)
{
    CALL_START;
    uint8_t *out;
    size_t room;
    int64_t offset;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &out, &room) ||
        !take_int(ctx, argv[4], 0, INT64_C(1) << 53, &offset))
        return JS_EXCEPTION;
    return give_result(ctx, RETRY(pread(fd, out, room, offset)));
}

static CALL(write_at)
{
    CALL_START;
    uint8_t *bytes;
    size_t length;
    int64_t offset;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_slice(ctx, argv[1], argv[2], argv[3], &bytes, &length) ||
        !take_int(ctx, argv[4], 0, INT64_C(1) << 53, &offset))
        return JS_EXCEPTION;
    return give_result(ctx, RETRY(pwrite(fd, bytes, length, offset)));
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

/* Flushes run in threads, so that other requests do not wait for a disk. */

struct flush {
    int64_t id;
    int fd, error;
    bool is_data_only;
};

static int flush_results[2] = {-1, -1};
static int flushes_under_way;

static void *flush_main(void *argument)
{
    struct flush *flush = argument;

    flush->error = (flush->is_data_only ? fdatasync(flush->fd) : fsync(flush->fd)) < 0 ? errno : 0;
    close(flush->fd);
    if (RETRY(write(flush_results[1], flush, sizeof *flush)) < 0) _exit(70); /* the caller would wait for ever */
    free(flush);
    return NULL;
}

/* Returns a descriptor to watch; `flushed` reads results from it. */
static CALL(open_flushes)
{
    CALL_START;
    if (flush_results[0] < 0 && pipe2(flush_results, O_CLOEXEC) < 0) return throw_errno(ctx, errno, "make a pipe", NULL);
    return JS_NewInt32(ctx, flush_results[0]);
}

static CALL(start_flush)
{
    CALL_START;
    pthread_attr_t attributes_of;
    pthread_t thread;
    int64_t id;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[2], 0, INT64_C(1) << 53, &id)) return JS_EXCEPTION;
    if (flushes_under_way == max_flushes) return give_error(ctx, EAGAIN);
    struct flush *flush = malloc(sizeof *flush);
    if (!flush) return give_error(ctx, ENOMEM);
    *flush = (struct flush){.id = id, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), .is_data_only = JS_ToBool(ctx, argv[1])};
    int error = flush->fd < 0 ? errno : 0;
    if (error == 0) {
        pthread_attr_init(&attributes_of);
        pthread_attr_setdetachstate(&attributes_of, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes_of, 64 << 10);
        error = pthread_create(&thread, &attributes_of, flush_main, flush);
        pthread_attr_destroy(&attributes_of);
        if (error != 0) close(flush->fd);
    }
    if (error != 0) {
        free(flush);
        return give_error(ctx, error);
    }
    flushes_under_way++;
    return JS_NewInt32(ctx, 0);
}

static CALL(flushed)
{
    CALL_START;
    struct flush flush;

    if (RETRY(read(flush_results[0], &flush, sizeof flush)) != sizeof flush) return throw_errno(ctx, EIO, "read a result", NULL);
    flushes_under_way--;
    JSValue result = JS_NewObject(ctx);
    if (!JS_IsException(result) && give_int(ctx, result, "id", flush.id) && give_int(ctx, result, "error", flush.error)) return result;
    JS_FreeValue(ctx, result);
    return JS_EXCEPTION;
}

/* Locks of ranges by open file description, as in struct fuse_file_lock --------------------------------------------- */

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
    JS_CFUNC_DEF("openRoot", 1, open_root),
    JS_CFUNC_DEF("openNode", 3, open_node),
    JS_CFUNC_DEF("nodeOf", 1, node_of),
    JS_CFUNC_DEF("look", 3, look),
    JS_CFUNC_DEF("lookIn", 5, look_in),
    JS_CFUNC_DEF("readLinkOf", 3, read_link_of),
    JS_CFUNC_DEF("spaceOf", 3, space_of),
    JS_CFUNC_DEF("listNode", 6, list_node),
    JS_CFUNC_DEF("createIn", 5, create_in),
    JS_CFUNC_DEF("createUnnamedIn", 3, create_unnamed_in),
    JS_CFUNC_DEF("makeNodeIn", 5, make_node_in),
    JS_CFUNC_DEF("symlinkIn", 3, symlink_in),
    JS_CFUNC_DEF("linkIn", 4, link_in),
    JS_CFUNC_DEF("removeIn", 4, remove_in),
    JS_CFUNC_DEF("renameIn", 5, rename_in),
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
    JS_CFUNC_DEF("openFile", 2, open_file),
    JS_CFUNC_DEF("reopenFile", 2, reopen_file),
    JS_CFUNC_DEF("readAt", 5, read_at),
    JS_CFUNC_DEF("writeAt", 5, write_at),
    JS_CFUNC_DEF("isLocal", 1, is_local),
    JS_CFUNC_DEF("closeOne", 1, close_one),
    JS_CFUNC_DEF("allocate", 4, allocate),
    JS_CFUNC_DEF("seekFrom", 3, seek_from),
    JS_CFUNC_DEF("copyBetween", 5, copy_between),
    JS_CFUNC_DEF("openFlushes", 0, open_flushes),
    JS_CFUNC_DEF("startFlush", 3, start_flush),
    JS_CFUNC_DEF("flushed", 0, flushed),
    JS_CFUNC_DEF("lockRange", 3, lock_range),
    JS_CFUNC_DEF("testLock", 3, test_lock),
    JS_CFUNC_DEF("lockFile", 2, lock_file),
};
const struct call_table served_calls = {calls, COUNT(calls)};
