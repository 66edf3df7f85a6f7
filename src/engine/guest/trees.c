/* Makes, renames and removes directories and files by path. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Calls that take a path and perhaps a mode. */
enum { do_unlink, do_rmdir, do_mkdir, do_mkdirs, do_chmod, do_tree };

static int make_directory(const char *path, mode_t mode)
{
    return mkdir(path, mode) == 0 ? chmod(path, mode) : -1; /* mkdir's mode is subject to the umask */
}

static int make_directories(const char *path, mode_t mode)
{
    char prefix[PATH_MAX];
    struct stat found;
    size_t length = strlen(path);

    if (length >= sizeof prefix) return errno = ENAMETOOLONG, -1;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(prefix, path, i);
        prefix[i] = '\0';
        if (make_directory(prefix, mode) < 0 && errno != EEXIST) return -1;
    }
    if (stat(path, &found) < 0) return -1;
    return S_ISDIR(found.st_mode) ? 0 : (errno = ENOTDIR, -1);
}

/* Removes the content of an open directory, which must be on `device`, and closes the directory. */
static int remove_below(int directory, dev_t device, int depth)
{
    DIR *stream = fdopendir(directory);
    struct dirent *entry;
    struct stat found;
    int result = 0;

    if (!stream) {
        close(directory);
        return -1;
    }
    while (result == 0 && (entry = readdir(stream))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (fstatat(dirfd(stream), name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
            result = errno == ENOENT ? 0 : -1;
            continue;
        }
        if (!S_ISDIR(found.st_mode)) {
            result = unlinkat(dirfd(stream), name, 0) < 0 && errno != ENOENT ? -1 : 0;
            continue;
        }
        if (found.st_dev != device || depth == 0) {
            errno = found.st_dev != device ? EXDEV : ELOOP;
            result = -1;
            continue;
        }
        int below = openat(dirfd(stream), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0 || remove_below(below, device, depth - 1) < 0) result = -1;
        else if (unlinkat(dirfd(stream), name, AT_REMOVEDIR) < 0 && errno != ENOENT) result = -1;
    }
    int error = errno;
    closedir(stream);
    errno = error;
    return result;
}

static int remove_tree(const char *path)
{
    struct stat found;
    int directory;

    if (lstat(path, &found) < 0) return errno == ENOENT ? 0 : -1;
    if (!S_ISDIR(found.st_mode)) return unlink(path);
    directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) return -1;
    /* 500 levels, each with a descriptor and a stack frame. */
    return remove_below(directory, found.st_dev, 500) < 0 ? -1 : rmdir(path);
}

static JSValue one_path(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int which)
{
    CALL_START;
    static const char *const verbs[] = {"remove file", "remove directory", "make directory",
                                        "make directories", "change the mode of", "remove tree"};
    int64_t mode;
    const char *path;
    int result;

    if (!take_optional_int(ctx, argv[1], 0, 07777, 0755, &mode)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    switch (which) {
    case do_unlink: result = unlink(path); break;
    case do_rmdir: result = rmdir(path); break;
    case do_mkdir: result = make_directory(path, (mode_t)mode); break;
    case do_mkdirs: result = make_directories(path, (mode_t)mode); break;
    case do_chmod: result = chmod(path, (mode_t)mode); break;
    default: result = remove_tree(path); break;
    }
    JSValue answer = result < 0 ? throw_errno(ctx, errno, verbs[which], path) : JS_UNDEFINED;
    JS_FreeCString(ctx, path);
    return answer;
}

enum { do_rename, do_symlink };

static JSValue two_paths(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int which)
{
    CALL_START;
    static const char *const verbs[] = {"rename to", "make symlink"};
    const char *from = take_text(ctx, argv[0]), *to = from ? take_text(ctx, argv[1]) : NULL;
    JSValue answer = JS_EXCEPTION;

    if (to) {
        int result = which == do_rename ? rename(from, to) : symlink(from, to);
        answer = result < 0 ? throw_errno(ctx, errno, verbs[which], to) : JS_UNDEFINED;
    }
    if (from) JS_FreeCString(ctx, from);
    if (to) JS_FreeCString(ctx, to);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_MAGIC_DEF("removeFile", 2, one_path, do_unlink),
    JS_CFUNC_MAGIC_DEF("removeDirectory", 2, one_path, do_rmdir),
    JS_CFUNC_MAGIC_DEF("makeDirectory", 2, one_path, do_mkdir),
    JS_CFUNC_MAGIC_DEF("makeDirectories", 2, one_path, do_mkdirs),
    JS_CFUNC_MAGIC_DEF("changeMode", 2, one_path, do_chmod),
    JS_CFUNC_MAGIC_DEF("removeTree", 2, one_path, do_tree),
    JS_CFUNC_MAGIC_DEF("rename", 2, two_paths, do_rename),
    JS_CFUNC_MAGIC_DEF("symlink", 2, two_paths, do_symlink),
};
const struct call_table tree_calls = {calls, COUNT(calls)};
