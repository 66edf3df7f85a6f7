/* Files by path. beneath.c has the calls for trees that a container may write to. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/quota.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef PRJQUOTA
#define PRJQUOTA 2
#endif

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

/* Reads a file of unknown size (procfs says 0). NULL with errno set: EFBIG above `max` bytes. */
static uint8_t *read_all(const char *path, size_t max, size_t *length)
{
    size_t room = 4096, used = 0;
    uint8_t *bytes = NULL, *more;
    int fd = RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)), error = 0;

    if (fd < 0) return NULL;
    for (;;) {
        if (!bytes || used == room) {
            if (bytes) room *= 2;
            more = realloc(bytes, room);
            if (!more) { error = ENOMEM; break; }
            bytes = more;
        }
        ssize_t got = RETRY(read(fd, bytes + used, room - used));
        if (got < 0) error = errno;
        if (got <= 0) break;
        used += (size_t)got;
        if (used > max) { error = EFBIG; break; }
    }
    close(fd);
    if (error) {
        free(bytes);
        errno = error;
        return NULL;
    }
    *length = used;
    return bytes;
}

static JSValue read_file(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int as_text)
{
    CALL_START;
    int64_t max;
    size_t length = 0;
    const char *path;
    uint8_t *bytes;
    JSValue result;

    if (!take_int(ctx, argv[1], 0, 64 << 20, &max)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    bytes = read_all(path, (size_t)max, &length);
    if (!bytes) result = throw_errno(ctx, errno, "read", path);
    else result = as_text ? give_text(ctx, (const char *)bytes, length) : give_bytes(ctx, bytes, length);
    free(bytes);
    JS_FreeCString(ctx, path);
    return result;
}

static int write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t done = RETRY(write(fd, bytes, length));
        if (done < 0) return -1;
        bytes += done;
        length -= (size_t)done;
    }
    return 0;
}

/* Makes one write to a file that exists, or writes a new file. A failing close is a failing write. */
static int write_path(const char *path, const uint8_t *bytes, size_t length, int64_t mode)
{
    bool is_new = mode >= 0;
    int fd = RETRY(open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | (is_new ? O_CREAT | O_TRUNC : 0), (mode_t)(is_new ? mode : 0)));
    int result, error;

    if (fd < 0) return -1;
    if (is_new) result = fchmod(fd, (mode_t)mode) < 0 ? -1 : write_all(fd, bytes, length);
    else result = RETRY(write(fd, bytes, length)) == (ssize_t)length ? 0 : -1;
    error = errno;
    if (close(fd) < 0 && errno != EINTR && result == 0) return -1;
    errno = error;
    return result;
}

static JSValue write_file(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int existing)
{
    CALL_START;
    int64_t mode = -1;
    uint8_t *bytes = NULL;
    size_t length;
    const char *path, *text = NULL;
    JSValue answer = JS_EXCEPTION;

    if (!existing && !take_optional_int(ctx, argv[2], 0, 07777, 0644, &mode)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    if (JS_IsString(argv[1])) {
        text = JS_ToCStringLen(ctx, &length, argv[1]);
        bytes = (uint8_t *)(uintptr_t)text; /* read only */
    }
    if (text || (!JS_IsString(argv[1]) && take_bytes(ctx, argv[1], &bytes, &length)))
        answer = write_path(path, bytes, length, mode) < 0 ? throw_errno(ctx, errno, "write", path) : JS_UNDEFINED;
    if (text) JS_FreeCString(ctx, text);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(read_link)
{
    CALL_START;
    char target[PATH_MAX];
    const char *path = take_text(ctx, argv[0]);
    ssize_t length;
    JSValue answer;

    if (!path) return JS_EXCEPTION;
    length = readlink(path, target, sizeof target);
    answer = length < 0 ? throw_errno(ctx, errno, "read link", path) : give_text(ctx, target, (size_t)length);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(change_owner)
{
    CALL_START;
    int64_t uid, gid;
    const char *path;

    if (!take_int(ctx, argv[1], -1, UINT32_MAX - 1, &uid) || !take_int(ctx, argv[2], -1, UINT32_MAX - 1, &gid)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    JSValue answer = lchown(path, (uid_t)uid, (gid_t)gid) < 0 ? throw_errno(ctx, errno, "change the owner of", path) : JS_UNDEFINED;
    JS_FreeCString(ctx, path);
    return answer;
}

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

static int set_project_of(int fd, uint32_t project)
{
    struct fsxattr attributes;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0) return -1;
    attributes.fsx_projid = project;
    attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    return ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

static CALL(set_project)
{
    CALL_START;
    int64_t project;
    const char *path;
    int fd;

    if (!take_int(ctx, argv[1], 0, UINT32_MAX, &project)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    JSValue answer = fd < 0 || set_project_of(fd, (uint32_t)project) < 0 ? throw_errno(ctx, errno, "set the project of", path)
                                                                        : JS_UNDEFINED;
    if (fd >= 0) close(fd);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(set_project_quota)
{
    CALL_START;
    int64_t project, bytes;
    struct dqblk quota = {0};
    const char *device;

    if (!take_int(ctx, argv[1], 0, INT32_MAX, &project) || !take_int(ctx, argv[2], 0, INT64_C(1) << 53, &bytes)) return JS_EXCEPTION;
    device = take_text(ctx, argv[0]);
    if (!device) return JS_EXCEPTION;
    quota.dqb_bhardlimit = ((uint64_t)bytes + 1023) / 1024; /* counted in KiB */
    quota.dqb_valid = QIF_BLIMITS;
    int result = quotactl(QCMD(Q_SETQUOTA, PRJQUOTA), device, (int)project, (caddr_t)&quota);
    JSValue answer = result < 0 ? throw_errno(ctx, errno, "set a quota on", device) : JS_UNDEFINED;
    JS_FreeCString(ctx, device);
    return answer;
}

static CALL(project_use)
{
    CALL_START;
    int64_t project;
    struct dqblk quota = {0};
    const char *device;

    if (!take_int(ctx, argv[1], 0, INT32_MAX, &project)) return JS_EXCEPTION;
    device = take_text(ctx, argv[0]);
    if (!device) return JS_EXCEPTION;
    int result = quotactl(QCMD(Q_GETQUOTA, PRJQUOTA), device, (int)project, (caddr_t)&quota);
    JSValue answer;
    if (result < 0) answer = throw_errno(ctx, errno, "ask for the use of", device);
    else {
        answer = JS_NewObject(ctx);
        give_int(ctx, answer, "bytes", (int64_t)quota.dqb_curspace);
        give_int(ctx, answer, "inodes", (int64_t)quota.dqb_curinodes);
    }
    JS_FreeCString(ctx, device);
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
    JS_CFUNC_MAGIC_DEF("readFile", 2, read_file, false),
    JS_CFUNC_MAGIC_DEF("readText", 2, read_file, true),
    JS_CFUNC_MAGIC_DEF("writeFile", 3, write_file, false),
    JS_CFUNC_MAGIC_DEF("writeExisting", 2, write_file, true),
    JS_CFUNC_DEF("readLink", 1, read_link),
    JS_CFUNC_DEF("changeOwner", 3, change_owner),
    JS_CFUNC_DEF("status", 1, status),
    JS_CFUNC_DEF("statusOf", 1, status_of),
    JS_CFUNC_DEF("list", 1, list),
    JS_CFUNC_DEF("space", 1, space),
    JS_CFUNC_DEF("setProject", 2, set_project),
    JS_CFUNC_DEF("setProjectQuota", 3, set_project_quota),
    JS_CFUNC_DEF("projectUse", 2, project_use),
};
const struct call_table file_calls = {calls, COUNT(calls)};
