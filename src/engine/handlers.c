/* Calls of JavaScript from C: promise jobs, exceptions, rejections and the watchdog. */
#define _GNU_SOURCE
#include "engine.h"

#include <time.h>

enum {
    max_jobs = 10000,      /* promise jobs run in a row, so that a chain of them cannot starve the rest */
    max_rejections = 256,  /* rejections remembered; more are reported at once */
};

struct rejection {
    JSValue promise, reason;
};

static JSValue on_error_handler = JS_UNDEFINED;
static struct rejection rejections[max_rejections];
static int rejection_count;

/* The watchdog counts the engine's interrupt checks (JS_INTERRUPT_COUNTER_INIT: one for 10,000 steps). */
static int64_t watchdog_looks, looks;

int64_t monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

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
    looks = 0;
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
    if (watchdog_looks == 0 || ++looks < watchdog_looks) return 0;
    looks = 0; /* the cleanup of the handler gets as many again */
    return 1;
}

bool settle(JSContext *ctx)
{
    JSRuntime *rt = JS_GetRuntime(ctx);
    JSContext *where;
    int done = 0, result;

    while (done++ < max_jobs) {
        looks = 0;
        result = JS_ExecutePendingJob(rt, &where);
        if (result < 0) report_exception(where);
        if (result == 0) break;
    }
    if (JS_IsJobPending(rt)) return true;
    while (rejection_count > 0) {
        JSValue reason = JS_DupValue(ctx, rejections[0].reason);
        forget_rejection(ctx, 0);
        report(ctx, reason);
        JS_FreeValue(ctx, reason);
    }
    return JS_IsJobPending(rt);
}

bool call_handler(JSContext *ctx, JSValueConst handler, JSValue argument)
{
    JSValue kept = JS_DupValue(ctx, handler), result; /* the handler may replace itself */
    bool ok;

    looks = 0;
    result = JS_Call(ctx, kept, JS_UNDEFINED, 1, &argument);
    ok = !JS_IsException(result);
    if (!ok) report_exception(ctx);
    JS_FreeValue(ctx, result);
    JS_FreeValue(ctx, argument);
    JS_FreeValue(ctx, kept);
    settle(ctx);
    return ok;
}

void handlers_start(JSContext *ctx)
{
    JS_SetHostPromiseRejectionTracker(JS_GetRuntime(ctx), on_rejection, NULL);
    JS_SetInterruptHandler(JS_GetRuntime(ctx), on_interrupt, NULL);
}

static CALL(set_on_error)
{
    CALL_START;
    return keep_handler(ctx, argv[0], "onError", &on_error_handler);
}

static CALL(set_watchdog)
{
    CALL_START;
    return take_int(ctx, argv[0], 0, 1000000, &watchdog_looks) ? JS_UNDEFINED : JS_EXCEPTION;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("onError", 1, set_on_error),
    JS_CFUNC_DEF("setWatchdog", 1, set_watchdog),
};
const struct call_table handler_calls = {calls, COUNT(calls)};
