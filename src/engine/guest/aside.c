/*
 * Processes aside: each makes one or a few calls that may take long, in place of the agent. A disk that hangs does not
 * hang the agent, and the machine's other processor does the work. The process shares our memory and so needs none of
 * its own; it does not use the C library, whose errno is ours too. Its exit code is the errno, 0 for success.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

enum { room = 4096, stack_room = 8192 };

/* The address checks keep state of a thread, which these processes share with us. */
#define UNCHECKED __attribute__((no_sanitize_address))

struct aside {
    pid_t pid; /* 0: free */
    int fd;
    unsigned long flags;
    size_t used;
    const char *texts[4];
    /* Makes the calls; returns an errno. */
    long (*work)(const struct aside *aside);
    uint8_t bytes[room] __attribute__((aligned(16)));
    uint8_t stack[stack_room] __attribute__((aligned(16)));
};
static struct aside asides[4];

UNCHECKED static long call_kernel(long number, long a, long b, long c, long d, long e)
{
    register long fourth __asm__("r10") = d, fifth __asm__("r8") = e;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                     : "rcx", "r11", "memory");
    return result;
}

UNCHECKED static int aside_main(void *argument)
{
    const struct aside *aside = argument;

    call_kernel(SYS_exit, aside->work(aside), 0, 0, 0, 0);
    return 0; /* never */
}

/* Returns a free place, cleared, or NULL. */
static struct aside *find_place(void)
{
    for (int i = 0; i < COUNT(asides); i++) {
        if (asides[i].pid != 0) continue;
        asides[i].used = 0;
        return &asides[i];
    }
    return NULL;
}

/* Keeps bytes until the process has ended. NULL with errno set if there is no room. */
static const void *keep(struct aside *aside, const void *bytes, size_t length)
{
    if (length > sizeof aside->bytes - aside->used) return errno = E2BIG, NULL;
    aside->used += length;
    return memcpy(aside->bytes + aside->used - length, bytes, length);
}

/* Keeps a text, as number `at` of its texts. False with an exception pending. */
static bool keep_text(JSContext *ctx, JSValueConst value, struct aside *aside, int at)
{
    const char *text = take_text(ctx, value);

    if (!text) return false;
    aside->texts[at] = keep(aside, text, strlen(text) + 1);
    JS_FreeCString(ctx, text);
    if (!aside->texts[at]) throw_errno(ctx, errno, "start a process aside", NULL);
    return aside->texts[at] != NULL;
}

/* Starts a process aside; all calls use this. children.c frees the place when the process has ended. */
static JSValue start(JSContext *ctx, struct aside *aside, long (*work)(const struct aside *aside))
{
    aside->work = work;
    pid_t pid = clone(aside_main, aside->stack + sizeof aside->stack, CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, aside);

    if (pid < 0) return throw_errno(ctx, errno, "start a process aside", NULL);
    aside->pid = pid;
    return JS_NewInt32(ctx, pid);
}

void aside_ended(pid_t pid)
{
    for (int i = 0; i < COUNT(asides); i++)
        if (asides[i].pid == pid) asides[i].pid = 0;
}

UNCHECKED static long mount_kept(const struct aside *aside)
{
    const char *const *texts = aside->texts;

    return -call_kernel(SYS_mount, (long)texts[0], (long)texts[1], (long)texts[2], (long)aside->flags, (long)texts[3]);
}

static CALL(mount_aside)
{
    CALL_START;
    struct aside *aside = find_place();
    int64_t flags;

    if (!take_int(ctx, argv[3], 0, UINT32_MAX, &flags)) return JS_EXCEPTION;
    if (!aside) return JS_NewInt32(ctx, 0);
    if (!keep_text(ctx, argv[0], aside, 0) || !keep_text(ctx, argv[1], aside, 1) || !keep_text(ctx, argv[2], aside, 2) ||
        !keep_text(ctx, argv[4], aside, 3))
        return JS_EXCEPTION;
    aside->flags = (unsigned long)flags;
    return start(ctx, aside, mount_kept);
}

UNCHECKED static long load_kept(const struct aside *aside)
{
    long fd = call_kernel(SYS_open, (long)aside->texts[0], O_RDONLY | O_CLOEXEC, 0, 0, 0);

    if (fd < 0) return -fd;
    long result = call_kernel(SYS_finit_module, fd, (long)"", 0, 0, 0);
    call_kernel(SYS_close, fd, 0, 0, 0, 0);
    return result < 0 && result != -EEXIST ? -result : 0;
}

static CALL(load_module_aside)
{
    CALL_START;
    struct aside *aside = find_place();

    if (!aside) return JS_NewInt32(ctx, 0);
    return keep_text(ctx, argv[0], aside, 0) ? start(ctx, aside, load_kept) : JS_EXCEPTION;
}

/* Each request is answered before its write returns (rtnetlink(7)); the first error ends it. */
UNCHECKED static long send_kept(const struct aside *aside)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        uint8_t rest[1024];
    } answer;

    for (size_t at = 0; at < aside->used;) {
        const struct nlmsghdr *request = (const void *)(aside->bytes + at);
        long result = call_kernel(SYS_write, aside->fd, (long)request, request->nlmsg_len, 0, 0);
        if (result >= 0) result = call_kernel(SYS_read, aside->fd, (long)&answer, sizeof answer, 0, 0);
        if (result < 0) return -result;
        if (answer.header.nlmsg_type != NLMSG_ERROR) return EPROTO;
        if (answer.error.error != 0) return -answer.error.error;
        at += NLMSG_ALIGN(request->nlmsg_len);
    }
    return 0;
}

/* Whether the bytes are whole, aligned messages. */
static bool are_messages(const uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        struct nlmsghdr header;
        if (length - at < sizeof header) return false;
        memcpy(&header, bytes + at, sizeof header);
        if (header.nlmsg_len < sizeof header || NLMSG_ALIGN(header.nlmsg_len) > length - at) return false;
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    return true;
}

static CALL(netlink_aside)
{
    CALL_START;
    struct aside *aside = find_place();
    uint8_t *bytes;
    size_t length;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_bytes(ctx, argv[1], &bytes, &length)) return JS_EXCEPTION;
    if (!are_messages(bytes, length)) return throw_errno(ctx, EINVAL, "take netlink requests", NULL);
    if (!aside) return JS_NewInt32(ctx, 0);
    if (length > 0 && !keep(aside, bytes, length)) return throw_errno(ctx, errno, "start a process aside", NULL);
    aside->fd = fd;
    return start(ctx, aside, send_kept);
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("mountAside", 5, mount_aside),
    JS_CFUNC_DEF("loadModuleAside", 1, load_module_aside),
    JS_CFUNC_DEF("netlinkAside", 2, netlink_aside),
};
const struct call_table aside_calls = {calls, COUNT(calls)};
