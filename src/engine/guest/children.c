/* Children that have ended, orphans included, and signals to processes. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

static JSValue on_exit_handler = JS_UNDEFINED;

/* Calls the exit handler for at most 64 ended children; true if there may be more. */
static bool reap(JSContext *ctx)
{
    for (int i = 0; i < 64; i++) {
        struct rusage usage;
        int status;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid <= 0) return pid < 0 && errno == EINTR;
        aside_ended(pid);
        if (JS_IsUndefined(on_exit_handler)) continue;
        JSValue ended = JS_NewObject(ctx);
        bool ok = !JS_IsException(ended) && give_int(ctx, ended, "pid", pid) &&
                  give_int(ctx, ended, "maxRssKiB", usage.ru_maxrss);
        if (ok && WIFEXITED(status)) ok = give_int(ctx, ended, "code", WEXITSTATUS(status));
        if (ok && WIFSIGNALED(status)) ok = give_int(ctx, ended, "signal", WTERMSIG(status));
        if (ok) call_handler(ctx, on_exit_handler, ended);
        else {
            JS_FreeValue(ctx, ended);
            report_exception(ctx);
        }
    }
    return true;
}

bool children_start(void)
{
    sigset_t signals;
    int signal_fd;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0) return false;
    signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return signal_fd >= 0 && loop_watch_children(signal_fd, reap);
}

static CALL(set_on_exit)
{
    CALL_START;
    return keep_handler(ctx, argv[0], "onExit", &on_exit_handler);
}

static CALL(kill_process)
{
    CALL_START;
    int64_t pid, signal;

    if (!take_int(ctx, argv[0], -(1 << 22), 1 << 22, &pid) || !take_int(ctx, argv[1], 0, 64, &signal)) return JS_EXCEPTION;
    /* -1 (all processes) and 0 (our own group) are always mistakes here. */
    if (pid == 0 || pid == -1) return throw_errno(ctx, EINVAL, "kill", NULL);
    return kill((pid_t)pid, (int)signal) < 0 ? throw_errno(ctx, errno, "signal a process", NULL) : JS_UNDEFINED;
}

static CALL(become_subreaper)
{
    CALL_START;
    return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? throw_errno(ctx, errno, "become subreaper", NULL) : JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("onExit", 1, set_on_exit),
    JS_CFUNC_DEF("kill", 2, kill_process),
    JS_CFUNC_DEF("becomeSubreaper", 0, become_subreaper),
};
const struct call_table child_calls = {calls, COUNT(calls)};
