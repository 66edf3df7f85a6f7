/* Looks at nodes: attributes, links, space and directories. */
#define _GNU_SOURCE
#include "messages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

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
        /* encoded as by the kernel's new_encode_dev */
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

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("look", 3, look),
    JS_CFUNC_DEF("lookIn", 5, look_in),
    JS_CFUNC_DEF("openRoot", 1, open_root),
    JS_CFUNC_DEF("openNode", 3, open_node),
    JS_CFUNC_DEF("nodeOf", 1, node_of),
    JS_CFUNC_DEF("readLinkOf", 3, read_link_of),
    JS_CFUNC_DEF("spaceOf", 3, space_of),
    JS_CFUNC_DEF("listNode", 6, list_node),
};
const struct call_table look_calls = {calls, COUNT(calls)};
