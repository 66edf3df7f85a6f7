/*
 * The loop: epoll, timers, ended children, promise jobs. One turn calls the handler of every ready descriptor, then of
 * every due timer, then of up to 64 ended children. An exception of JavaScript does not end it.
 */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    batch = 64,            /* descriptors served per turn; the kernel rotates the rest to the front */
    max_failures = 1000,   /* exceptions in a row after which a descriptor is unwatched */
};

/* One watched descriptor. `generation` distinguishes events from those of an earlier use of the same number. */
struct watch {
    JSValue handler;
    uint32_t generation;
    uint16_t failures;
    bool is_used;
};

static int epoll_fd = -1, child_signal_fd = -1;
static bool (*reap_children)(JSContext *ctx);
static struct watch *watches;
static int watch_room;

static const uint64_t child_signal_key = UINT64_MAX;

static bool make_room_for(int fd)
{
    int room = watch_room ? watch_room : 64;
    struct watch *more;

    while (room <= fd) room *= 2;
    if (room == watch_room) return true;
    more = realloc(watches, (size_t)room * sizeof *more);
    if (!more) return false;
    for (int i = watch_room; i < room; i++) more[i] = (struct watch){.handler = JS_UNDEFINED};
    watches = more;
    watch_room = room;
    return true;
}

static uint32_t epoll_interest(int64_t interest)
{
    return (interest & 1 ? EPOLLIN : 0) | (interest & 2 ? EPOLLOUT : 0) | (interest & 16 ? EPOLLPRI : 0) |
           (interest & 32 ? EPOLLET : 0);
}

bool loop_uses(int fd)
{
    return fd == epoll_fd || fd == child_signal_fd;
}

static CALL(watch_fd)
{
    CALL_START;
    int fd;
    int64_t interest;
    struct epoll_event event = {0};

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, 63, &interest)) return JS_EXCEPTION;
    if (!JS_IsFunction(ctx, argv[2])) return JS_ThrowTypeError(ctx, "Cannot watch: the handler is not a function");
    if (loop_uses(fd)) return throw_errno(ctx, EBADF, "watch", NULL);
    if (!make_room_for(fd)) return JS_ThrowOutOfMemory(ctx);
    struct watch *watch = &watches[fd];
    if (!watch->is_used) watch->generation++;
    event.events = epoll_interest(interest);
    event.data.u64 = (uint64_t)watch->generation << 32 | (uint32_t)fd;
    if (epoll_ctl(epoll_fd, watch->is_used ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
        return throw_errno(ctx, errno, "watch a descriptor", NULL);
    JSValue old = watch->handler;
    watch->handler = JS_DupValue(ctx, argv[2]);
    watch->is_used = true;
    watch->failures = 0;
    JS_FreeValue(ctx, old);
    return JS_UNDEFINED;
}

void loop_unwatch(JSContext *ctx, int fd)
{
    JSValue old;

    if (fd >= watch_room || !watches[fd].is_used) return;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    old = watches[fd].handler;
    watches[fd].handler = JS_UNDEFINED;
    watches[fd].is_used = false;
    JS_FreeValue(ctx, old);
}

static CALL(unwatch_fd)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    loop_unwatch(ctx, fd);
    return JS_UNDEFINED;
}

static void serve(JSContext *ctx, const struct epoll_event *event)
{
    int fd = (int)(uint32_t)event->data.u64;
    uint32_t bits = event->events, generation = (uint32_t)(event->data.u64 >> 32);
    int told = (bits & EPOLLIN ? 1 : 0) | (bits & EPOLLOUT ? 2 : 0) | (bits & EPOLLHUP ? 4 : 0) |
               (bits & EPOLLERR ? 8 : 0) | (bits & EPOLLPRI ? 16 : 0);

    if (fd < 0 || fd >= watch_room || !watches[fd].is_used || watches[fd].generation != generation) return;
    bool ok = call_handler(ctx, watches[fd].handler, JS_NewInt32(ctx, told));
    if (!watches[fd].is_used || watches[fd].generation != generation) return;
    watches[fd].failures = ok ? 0 : (uint16_t)(watches[fd].failures + 1);
    if (watches[fd].failures < max_failures) return;
    static const char text[] = "Cannot watch a descriptor any longer: its handler failed 1000 times in a row";
    print_line(text, sizeof text - 1);
    loop_unwatch(ctx, fd);
}

bool loop_start(JSContext *ctx)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) return false;
    handlers_start(ctx);
    return true;
}

bool loop_watch_children(int signal_fd, bool (*reap)(JSContext *ctx))
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = child_signal_key};

    child_signal_fd = signal_fd;
    reap_children = reap;
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, signal_fd, &event) == 0;
}

int loop_run(JSContext *ctx)
{
    struct epoll_event events[batch];
    bool has_ended_children = reap_children != NULL; /* some may have ended before the loop began */
    bool has_jobs_left = settle(ctx);

    for (;;) {
        int count = epoll_wait(epoll_fd, events, batch, has_jobs_left || has_ended_children ? 0 : timer_wait_ms());
        if (count < 0 && errno != EINTR) return -1;
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == child_signal_key) {
                struct signalfd_siginfo ignored[16];
                while (read(child_signal_fd, ignored, sizeof ignored) > 0) continue;
                has_ended_children = true;
            } else serve(ctx, &events[i]);
        }
        fire_timers(ctx);
        if (has_ended_children) has_ended_children = reap_children(ctx);
        has_jobs_left = settle(ctx);
    }
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("watch", 3, watch_fd),
    JS_CFUNC_DEF("unwatch", 1, unwatch_fd),
};
const struct call_table loop_calls = {calls, COUNT(calls)};
