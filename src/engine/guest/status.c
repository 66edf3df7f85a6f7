/* Looks at files, directories and file systems by path. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static const char *kind_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "symlink";
    case S_IFCHR: return "characterDevice";
    case S_IFBLK: return "blockDevice";
    case S_IFIFO: return "fifo";
    case S_IFSOCK: return "socket";
    default: return "unknown";
    }
}

static JSValue give_status(JSContext *ctx, const struct stat *found)
{
    JSValue status = JS_NewObject(ctx);
    double modified = (double)found->st_mtim.tv_sec * 1e3 + (double)(found->st_mtim.tv_nsec / 1000) / 1e3;
    bool is_device = S_ISCHR(found->st_mode) || S_ISBLK(found->st_mode);
    bool ok = !JS_IsException(status) &&
              JS_DefinePropertyValueStr(ctx, status, "kind", JS_NewString(ctx, kind_name(found->st_mode)), JS_PROP_C_W_E) >= 0 &&
              give_int(ctx, status, "mode", found->st_mode & 07777) && give_int(ctx, status, "uid", found->st_uid) &&
              give_int(ctx, status, "gid", found->st_gid) && give_int(ctx, status, "size", found->st_size) &&
              give_int(ctx, status, "inode", (int64_t)found->st_ino) &&
              give_int(ctx, status, "device", (int64_t)found->st_dev) &&
              give_int(ctx, status, "major", is_device ? major(found->st_rdev) : 0) &&
              give_int(ctx, status, "minor", is_device ? minor(found->st_rdev) : 0) &&
              JS_DefinePropertyValueStr(ctx, status, "modifiedMs", JS_NewFloat64(ctx, modified), JS_PROP_C_W_E) >= 0;

    if (ok) return status;
    JS_FreeValue(ctx, status);
    return JS_EXCEPTION;
}

static CALL(status)
{
    CALL_START;
    struct stat found;
    const char *path = take_text(ctx, argv[0]);
    JSValue answer;

    if (!path) return JS_EXCEPTION;
    if (lstat(path, &found) == 0) answer = give_status(ctx, &found);
    else answer = errno == ENOENT || errno == ENOTDIR ? JS_UNDEFINED : throw_errno(ctx, errno, "look at", path);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(status_of)
{
    CALL_START;
    struct stat found;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    return fstat(fd, &found) < 0 ? throw_errno(ctx, errno, "look at a descriptor", NULL) : give_status(ctx, &found);
}

static bool add_names(JSContext *ctx, JSValueConst names, DIR *stream, const char *path)
{
    uint32_t count = 0;
    struct dirent *entry;

    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (!entry) break;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (count == max_list_names) {
            errno = EFBIG;
            break;
        }
        JSValue text = give_text(ctx, name, strlen(name));
        if (JS_IsException(text) || JS_SetPropertyUint32(ctx, names, count++, text) < 0) return false;
    }
    if (errno != 0) throw_errno(ctx, errno, "list", path);
    return errno == 0;
}

static CALL(list)
{
    CALL_START;
    const char *path = take_text(ctx, argv[0]);
    JSValue names;
    DIR *stream;

    if (!path) return JS_EXCEPTION;
    stream = opendir(path);
    names = stream ? JS_NewArray(ctx) : throw_errno(ctx, errno, "list", path);
    if (stream && !JS_IsException(names) && !add_names(ctx, names, stream, path)) {
        JS_FreeValue(ctx, names);
        names = JS_EXCEPTION;
    }
    if (stream) closedir(stream);
    JS_FreeCString(ctx, path);
    return names;
}

static CALL(space)
{
    CALL_START;
    struct statvfs found;
    const char *path = take_text(ctx, argv[0]);
    JSValue answer;

    if (!path) return JS_EXCEPTION;
    if (statvfs(path, &found) < 0) answer = throw_errno(ctx, errno, "ask for the space of", path);
    else {
        answer = JS_NewObject(ctx);
        give_int(ctx, answer, "totalBytes", (int64_t)(found.f_blocks * found.f_frsize));
        give_int(ctx, answer, "freeBytes", (int64_t)(found.f_bavail * found.f_frsize));
        give_int(ctx, answer, "totalInodes", (int64_t)found.f_files);
        give_int(ctx, answer, "freeInodes", (int64_t)found.f_favail);
    }
    JS_FreeCString(ctx, path);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("status", 1, status),
    JS_CFUNC_DEF("statusOf", 1, status_of),
    JS_CFUNC_DEF("list", 1, list),
    JS_CFUNC_DEF("space", 1, space),
};
const struct call_table status_calls = {calls, COUNT(calls)};
