/* Timers of the loop. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <stdlib.h>

struct timer {
    int64_t due_ns;
    int64_t id;
    JSValue handler;
};

static struct timer *timers; /* a binary heap, earliest first */
static int timer_count, timer_room;
static int64_t next_timer_id = 1;

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

void fire_timers(JSContext *ctx)
{
    int64_t now = monotonic_ns(), before = next_timer_id;

    while (timer_count > 0 && timers[0].due_ns <= now && timers[0].id < before) {
        JSValue handler = take_timer(0);
        call_handler(ctx, handler, JS_UNDEFINED);
        JS_FreeValue(ctx, handler);
    }
}

int timer_wait_ms(void)
{
    int64_t left;

    if (timer_count == 0) return -1;
    left = timers[0].due_ns - monotonic_ns();
    if (left <= 0) return 0;
    left = (left + 999999) / 1000000;
    return left > 3600000 ? 3600000 : (int)left;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("setTimer", 2, set_timer),
    JS_CFUNC_DEF("clearTimer", 1, clear_timer),
};
const struct call_table timer_calls = {calls, COUNT(calls)};
