/* Projects of ext4, which count and limit the space of a directory. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/quota.h>
#include <unistd.h>

#ifndef PRJQUOTA
#define PRJQUOTA 2
#endif

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
    JS_CFUNC_DEF("setProject", 2, set_project),
    JS_CFUNC_DEF("setProjectQuota", 3, set_project_quota),
    JS_CFUNC_DEF("projectUse", 2, project_use),
};
const struct call_table project_calls = {calls, COUNT(calls)};
