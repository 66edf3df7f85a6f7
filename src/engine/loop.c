/*
 * The loop: epoll, timers, ended children, promise jobs. One turn calls the handler of every ready descriptor, then of
 * every due timer, then of up to 64 ended children. An exception of JavaScript does not end it.
 */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum {
    batch = 64,            /* descriptors served per turn; the kernel rotates the rest to the front */
    max_jobs = 10000,      /* promise jobs run in a row, so that a chain of them cannot starve the rest */
    max_rejections = 256,  /* rejections remembered; more are reported at once */
    max_failures = 1000,   /* exceptions in a row after which a descriptor is unwatched */
};

/* One watched descriptor. `generation` distinguishes events from those of an earlier use of the same number. */
struct watch {
    JSValue handler;
    uint32_t generation;
    uint16_t failures;
    bool is_used;
};

struct timer {
    int64_t due_ns;
    int64_t id;
    JSValue handler;
};

struct rejection {
    JSValue promise, reason;
};

static int epoll_fd = -1, child_signal_fd = -1;
static bool (*reap_children)(JSContext *ctx);
static JSValue on_error_handler = JS_UNDEFINED;

static struct watch *watches;
static int watch_room;
static struct timer *timers; /* a binary heap, earliest first */
static int timer_count, timer_room;
static int64_t next_timer_id = 1;
static struct rejection rejections[max_rejections];
static int rejection_count;
static bool has_jobs_left;
static int64_t watchdog_ns, handler_started_ns;

static const uint64_t child_signal_key = UINT64_MAX;

int64_t monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Errors ------------------------------------------------------------------------------------------------------------ */

static void print_error(JSContext *ctx, JSValueConst error)
{
    JSValue stack = JS_IsError(ctx, error) ? JS_GetPropertyStr(ctx, error, "stack") : JS_UNDEFINED;
    size_t length;
    const char *text = JS_ToCStringLen(ctx, &length, error);

    if (text) print_line(text, length);
    else JS_FreeValue(ctx, JS_GetException(ctx));
    JS_FreeCString(ctx, text);
    if (JS_IsString(stack) && (text = JS_ToCStringLen(ctx, &length, stack))) {
        print_line(text, length);
        JS_FreeCString(ctx, text);
    }
    JS_FreeValue(ctx, stack);
}

/* Gives `error` (not consumed) to the onError handler; prints it if there is none or it fails too. */
static void report(JSContext *ctx, JSValueConst error)
{
    JSValue handler = JS_DupValue(ctx, on_error_handler), result;

    if (JS_IsUndefined(handler)) {
        print_error(ctx, error);
        return;
    }
    handler_started_ns = monotonic_ns();
    result = JS_Call(ctx, handler, JS_UNDEFINED, 1, &error);
    JS_FreeValue(ctx, handler);
    if (JS_IsException(result)) {
        JSValue second = JS_GetException(ctx);
        print_error(ctx, error);
        print_error(ctx, second);
        JS_FreeValue(ctx, second);
    }
    JS_FreeValue(ctx, result);
}

void report_exception(JSContext *ctx)
{
    JSValue error = JS_GetException(ctx);

    report(ctx, error);
    JS_FreeValue(ctx, error);
}

static void forget_rejection(JSContext *ctx, int index)
{
    JS_FreeValue(ctx, rejections[index].promise);
    JS_FreeValue(ctx, rejections[index].reason);
    rejections[index] = rejections[--rejection_count];
}

static void on_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, JS_BOOL is_handled, void *unused)
{
    UNUSED(unused);
    if (!is_handled) {
        if (rejection_count == max_rejections) {
            report(ctx, reason);
            return;
        }
        rejections[rejection_count].promise = JS_DupValue(ctx, promise);
        rejections[rejection_count++].reason = JS_DupValue(ctx, reason);
        return;
    }
    for (int i = 0; i < rejection_count; i++) {
        if (!JS_StrictEq(ctx, rejections[i].promise, promise)) continue;
        forget_rejection(ctx, i);
        return;
    }
}

static int on_interrupt(JSRuntime *rt, void *unused)
{
    UNUSED(rt);
    UNUSED(unused);
    if (watchdog_ns == 0 || monotonic_ns() - handler_started_ns < watchdog_ns) return 0;
    handler_started_ns = monotonic_ns(); /* its cleanup gets the same time again */
    return 1;
}

/* Calls ------------------------------------------------------------------------------------------------------------- */

/* Runs the promise jobs that a call left behind, then reports unhandled rejections. */
static void settle(JSContext *ctx)
{
    JSRuntime *rt = JS_GetRuntime(ctx);
    JSContext *where;
    int done = 0, result;

    while (done++ < max_jobs) {
        handler_started_ns = monotonic_ns();
        result = JS_ExecutePendingJob(rt, &where);
        if (result < 0) report_exception(where);
        if (result == 0) break;
    }
    has_jobs_left = JS_IsJobPending(rt);
    if (has_jobs_left) return;
    while (rejection_count > 0) {
        JSValue reason = JS_DupValue(ctx, rejections[0].reason);
        forget_rejection(ctx, 0);
        report(ctx, reason);
        JS_FreeValue(ctx, reason);
    }
    has_jobs_left = JS_IsJobPending(rt);
}

bool call_handler(JSContext *ctx, JSValueConst handler, JSValue argument)
{
    JSValue kept = JS_DupValue(ctx, handler), result; /* the handler may replace itself */
    bool ok;

    handler_started_ns = monotonic_ns();
    result = JS_Call(ctx, kept, JS_UNDEFINED, 1, &argument);
    ok = !JS_IsException(result);
    if (!ok) report_exception(ctx);
    JS_FreeValue(ctx, result);
    JS_FreeValue(ctx, argument);
    JS_FreeValue(ctx, kept);
    settle(ctx);
    return ok;
}

/* Watches ----------------------------------------------------------------------------------------------------------- */

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
    return (interest & 1 ? EPOLLIN : 0) | (interest & 2 ? EPOLLOUT : 0) | (interest & 16 ? EPOLLPRI : 0);
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

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, 31, &interest)) return JS_EXCEPTION;
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

/* Timers ------------------------------------------------------------------------------------------------------------ */

static void sift_up(int at)
{
    while (at > 0 && timers[at].due_ns < timers[(at - 1) / 2].due_ns) {
        struct timer moved = timers[at];
        timers[at] = timers[(at - 1) / 2];
        timers[(at - 1) / 2] = moved;
        at = (at - 1) / 2;
    }
}

static void sift_down(int at)
{
    for (;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2 && child < timer_count; child++)
            if (timers[child].due_ns < timers[least].due_ns) least = child;
        if (least == at) return;
        struct timer moved = timers[at];
        timers[at] = timers[least];
        timers[least] = moved;
        at = least;
    }
}

/* Removes a timer; the caller then owns its handler. */
static JSValue take_timer(int at)
{
    JSValue handler = timers[at].handler;

    timers[at] = timers[--timer_count];
    if (at < timer_count) {
        sift_up(at);
        sift_down(at);
    }
    return handler;
}

static CALL(set_timer)
{
    CALL_START;
    int64_t delay;
    double exact;

    if (!JS_IsNumber(argv[0]) || JS_ToFloat64(ctx, &exact, argv[0]) < 0 || !(exact >= 0 && exact <= 2147483648.0))
        return JS_ThrowRangeError(ctx, "Cannot set a timer: the delay is not between 0 and 2^31 ms");
    delay = (int64_t)(exact * 1e6);
    if (!JS_IsFunction(ctx, argv[1])) return JS_ThrowTypeError(ctx, "Cannot set a timer: the handler is not a function");
    if (timer_count == timer_room) {
        int room = timer_room ? timer_room * 2 : 16;
        struct timer *more = room > max_timers ? NULL : realloc(timers, (size_t)room * sizeof *more);
        if (!more) return throw_errno(ctx, ENOMEM, "set a timer", NULL);
        timers = more;
        timer_room = room;
    }
    timers[timer_count] =
        (struct timer){.due_ns = monotonic_ns() + delay, .id = next_timer_id, .handler = JS_DupValue(ctx, argv[1])};
    sift_up(timer_count++);
    return JS_NewInt64(ctx, next_timer_id++);
}

static CALL(clear_timer)
{
    CALL_START;
    int64_t id;

    if (!take_int(ctx, argv[0], 0, INT64_C(1) << 53, &id)) return JS_EXCEPTION;
    for (int i = 0; i < timer_count; i++) {
        if (timers[i].id != id) continue;
        JS_FreeValue(ctx, take_timer(i));
        break;
    }
    return JS_UNDEFINED;
}

/* Fires the timers that are due at the start, each once: one set meanwhile with delay 0 waits for the next turn. */
static void fire_timers(JSContext *ctx)
{
    int64_t now = monotonic_ns(), before = next_timer_id;

    while (timer_count > 0 && timers[0].due_ns <= now && timers[0].id < before) {
        JSValue handler = take_timer(0);
        call_handler(ctx, handler, JS_UNDEFINED);
        JS_FreeValue(ctx, handler);
    }
}

static int wait_ms(bool is_busy)
{
    int64_t left;

    if (is_busy) return 0;
    if (timer_count == 0) return -1;
    left = timers[0].due_ns - monotonic_ns();
    if (left <= 0) return 0;
    left = (left + 999999) / 1000000;
    return left > 3600000 ? 3600000 : (int)left;
}

/* The loop ---------------------------------------------------------------------------------------------------------- */

bool loop_start(JSContext *ctx)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) return false;
    JS_SetHostPromiseRejectionTracker(JS_GetRuntime(ctx), on_rejection, NULL);
    JS_SetInterruptHandler(JS_GetRuntime(ctx), on_interrupt, NULL);
    handler_started_ns = monotonic_ns();
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

    settle(ctx);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, batch, wait_ms(has_jobs_left || has_ended_children));
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
        settle(ctx);
    }
}

static CALL(set_on_error)
{
    CALL_START;
    return keep_handler(ctx, argv[0], "onError", &on_error_handler);
}

static CALL(set_watchdog)
{
    CALL_START;
    int64_t ms;

    if (!take_int(ctx, argv[0], 0, 3600000, &ms)) return JS_EXCEPTION;
    watchdog_ns = ms * 1000000;
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("watch", 3, watch_fd),         JS_CFUNC_DEF("unwatch", 1, unwatch_fd),
    JS_CFUNC_DEF("setTimer", 2, set_timer),     JS_CFUNC_DEF("clearTimer", 1, clear_timer),
    JS_CFUNC_DEF("onError", 1, set_on_error),   JS_CFUNC_DEF("setWatchdog", 1, set_watchdog),
};
const struct call_table loop_calls = {calls, COUNT(calls)};
