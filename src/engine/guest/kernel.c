/* Mounts, modules, programs for devices, entropy, the clock, power. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static CALL(monotonic_ms)
{
    CALL_START;
    return JS_NewFloat64(ctx, (double)monotonic_ns() / 1e6);
}

static CALL(realtime_ms)
{
    CALL_START;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return JS_NewFloat64(ctx, (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6);
}

static CALL(set_realtime_ms)
{
    CALL_START;
    double ms;
    struct timespec time;

    /* The kernel takes times up to the year 2255. */
    if (!JS_IsNumber(argv[0]) || JS_ToFloat64(ctx, &ms, argv[0]) < 0 || !(ms >= 0 && ms < 9e12))
        return JS_ThrowRangeError(ctx, "Cannot set the clock: not a time since the epoch");
    time.tv_sec = (time_t)(ms / 1e3);
    time.tv_nsec = (long)((ms - (double)time.tv_sec * 1e3) * 1e6);
    if (time.tv_nsec < 0) time.tv_nsec = 0;
    if (time.tv_nsec > 999999999) time.tv_nsec = 999999999;
    return clock_settime(CLOCK_REALTIME, &time) < 0 ? throw_errno(ctx, errno, "set the clock", NULL) : JS_UNDEFINED;
}

static CALL(mount_path)
{
    CALL_START;
    const char *texts[4] = {0}; /* source, target, type, data */
    static const int at[4] = {0, 1, 2, 4};
    int64_t flags;
    JSValue answer = JS_EXCEPTION;
    bool ok = take_int(ctx, argv[3], 0, UINT32_MAX, &flags);

    for (int i = 0; ok && i < 4; i++) ok = (texts[i] = take_text(ctx, argv[at[i]])) != NULL;
    if (ok) {
        int result = mount(texts[0], texts[1], texts[2][0] ? texts[2] : NULL, (unsigned long)flags, texts[3][0] ? texts[3] : NULL);
        answer = result < 0 ? throw_errno(ctx, errno, "mount on", texts[1]) : JS_UNDEFINED;
    }
    for (int i = 0; i < 4; i++)
        if (texts[i]) JS_FreeCString(ctx, texts[i]);
    return answer;
}

static CALL(unmount)
{
    CALL_START;
    int64_t flags;
    const char *path;

    if (!take_int(ctx, argv[1], 0, 15, &flags)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    JSValue answer = umount2(path, (int)flags) < 0 ? throw_errno(ctx, errno, "unmount", path) : JS_UNDEFINED;
    JS_FreeCString(ctx, path);
    return answer;
}

enum { do_chroot, do_chdir, do_hostname };

static JSValue one_text(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int which)
{
    CALL_START;
    static const char *const verbs[] = {"change the root to", "change the directory to", "set the host name to"};
    const char *text = take_text(ctx, argv[0]);
    int result;

    if (!text) return JS_EXCEPTION;
    if (which == do_chroot) result = chroot(text);
    else if (which == do_chdir) result = chdir(text);
    else result = sethostname(text, strlen(text));
    JSValue answer = result < 0 ? throw_errno(ctx, errno, verbs[which], text) : JS_UNDEFINED;
    JS_FreeCString(ctx, text);
    return answer;
}

static CALL(load_module)
{
    CALL_START;
    const char *path = take_text(ctx, argv[0]), *parameters = path ? take_text(ctx, argv[1]) : NULL;
    JSValue answer = JS_EXCEPTION;

    if (parameters) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t length = strlen(path);
        bool is_plain = length > 3 && strcmp(path + length - 3, ".ko") == 0;
        long result = fd < 0 ? -1 : syscall(SYS_finit_module, fd, parameters, is_plain ? 0 : MODULE_INIT_COMPRESSED_FILE);
        answer = result < 0 && errno != EEXIST ? throw_errno(ctx, errno, "load module", path) : JS_UNDEFINED;
        if (fd >= 0) close(fd);
        JS_FreeCString(ctx, parameters);
    }
    if (path) JS_FreeCString(ctx, path);
    return answer;
}

static CALL(sync_all)
{
    CALL_START;
    UNUSED(ctx);
    sync();
    return JS_UNDEFINED;
}

static CALL(power_off)
{
    CALL_START;
    return reboot(RB_POWER_OFF) < 0 ? throw_errno(ctx, errno, "power off", NULL) : JS_UNDEFINED;
}

static CALL(set_descriptor_limit)
{
    CALL_START;
    int64_t count;

    if (!take_int(ctx, argv[0], 16, max_fds, &count)) return JS_EXCEPTION;
    struct rlimit limit = {.rlim_cur = (rlim_t)count, .rlim_max = (rlim_t)count};
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? throw_errno(ctx, errno, "set the descriptor limit", NULL) : JS_UNDEFINED;
}

/* Changes the effective set of this, the only, thread; the permitted set keeps the capability. */
static CALL(set_capability)
{
    CALL_START;
    int64_t capability;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};

    if (!take_int(ctx, argv[0], 0, CAP_LAST_CAP, &capability)) return JS_EXCEPTION;
    if (syscall(SYS_capget, &header, sets) < 0) return throw_errno(ctx, errno, "ask for capabilities", NULL);
    uint32_t *effective = &sets[CAP_TO_INDEX(capability)].effective;
    if (JS_ToBool(ctx, argv[1])) *effective |= CAP_TO_MASK(capability);
    else *effective &= ~CAP_TO_MASK(capability);
    return syscall(SYS_capset, &header, sets) < 0 ? throw_errno(ctx, errno, "change a capability", NULL) : JS_UNDEFINED;
}

static CALL(load_device_program)
{
    CALL_START;
    uint8_t *instructions;
    size_t length;
    int fd;

    if (!take_bytes(ctx, argv[0], &instructions, &length)) return JS_EXCEPTION;
    union bpf_attr program = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)instructions,
        .insn_cnt = (uint32_t)(length / sizeof(struct bpf_insn)),
        .license = (uintptr_t)"",
    };
    fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof program);
    return fd < 0 ? throw_errno(ctx, errno, "load a program", NULL) : JS_NewInt32(ctx, fd);
}

static CALL(attach_device_program)
{
    CALL_START;
    int64_t program;
    const char *cgroup;

    if (!take_int(ctx, argv[0], 0, max_fds, &program)) return JS_EXCEPTION;
    cgroup = take_text(ctx, argv[1]);
    if (!cgroup) return JS_EXCEPTION;
    int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    union bpf_attr place = {
        .target_fd = (uint32_t)fd,
        .attach_bpf_fd = (uint32_t)program,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI, /* a container may attach its own to cgroups that it makes */
    };
    bool ok = fd >= 0 && syscall(SYS_bpf, BPF_PROG_ATTACH, &place, sizeof place) == 0;
    JSValue answer = ok ? JS_UNDEFINED : throw_errno(ctx, errno, "attach a program to", cgroup);
    if (fd >= 0) close(fd);
    JS_FreeCString(ctx, cgroup);
    return answer;
}

static CALL(add_entropy)
{
    CALL_START;
    uint8_t *bytes;
    size_t length;
    struct {
        struct rand_pool_info info;
        uint8_t bytes[1024];
    } pool;

    if (!take_bytes(ctx, argv[0], &bytes, &length)) return JS_EXCEPTION;
    if (length == 0 || length > sizeof pool.bytes) return throw_errno(ctx, EINVAL, "add entropy", NULL);
    pool.info.entropy_count = (int)length * 8;
    pool.info.buf_size = (int)length;
    memcpy(pool.bytes, bytes, length);
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && ioctl(fd, RNDADDENTROPY, &pool) == 0 && ioctl(fd, RNDRESEEDCRNG) == 0;
    JSValue answer = ok ? JS_UNDEFINED : throw_errno(ctx, errno, "add entropy", NULL);
    if (fd >= 0) close(fd);
    explicit_bzero(&pool, sizeof pool);
    return answer;
}

/* From the kernel's fs/ext4/ext4.h, which programs cannot include. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static CALL(grow_ext4)
{
    CALL_START;
    int64_t bytes;
    struct statfs space;
    const char *path;

    if (!take_int(ctx, argv[1], 0, INT64_C(1) << 53, &bytes)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = fd >= 0 && fstatfs(fd, &space) == 0;
    if (ok) {
        uint64_t blocks = (uint64_t)bytes / (uint64_t)space.f_bsize;
        ok = ioctl(fd, EXT4_IOC_RESIZE_FS, &blocks) == 0;
    }
    JSValue answer = ok ? JS_UNDEFINED : throw_errno(ctx, errno, "grow", path);
    if (fd >= 0) close(fd);
    JS_FreeCString(ctx, path);
    return answer;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("monotonicMs", 0, monotonic_ms),
    JS_CFUNC_DEF("realtimeMs", 0, realtime_ms),
    JS_CFUNC_DEF("setRealtimeMs", 1, set_realtime_ms),
    JS_CFUNC_DEF("mount", 5, mount_path),
    JS_CFUNC_DEF("unmount", 2, unmount),
    JS_CFUNC_DEF("growExt4", 2, grow_ext4),
    JS_CFUNC_MAGIC_DEF("changeRoot", 1, one_text, do_chroot),
    JS_CFUNC_MAGIC_DEF("changeDirectory", 1, one_text, do_chdir),
    JS_CFUNC_MAGIC_DEF("setHostname", 1, one_text, do_hostname),
    JS_CFUNC_DEF("loadModule", 2, load_module),
    JS_CFUNC_DEF("sync", 0, sync_all),
    JS_CFUNC_DEF("setDescriptorLimit", 1, set_descriptor_limit),
    JS_CFUNC_DEF("setCapability", 2, set_capability),
    JS_CFUNC_DEF("loadDeviceProgram", 1, load_device_program),
    JS_CFUNC_DEF("attachDeviceProgram", 2, attach_device_program),
    JS_CFUNC_DEF("addEntropy", 1, add_entropy),
    JS_CFUNC_DEF("powerOff", 0, power_off),
};
const struct call_table kernel_calls = {calls, COUNT(calls)};
