/*
 * Starting programs. `spawn` shares our memory with the child until it execs (clone with CLONE_VM and CLONE_VFORK, as
 * posix_spawn does), which costs the same however much memory we have; the child therefore only makes system calls.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/memfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Everything the child needs, prepared before the clone. The child sets `error`: memory is shared. */
struct plan {
    char **argv, **env;
    const char *cwd;
    int64_t fds[max_child_fds];
    int64_t groups[max_groups];
    gid_t kernel_groups[max_groups];
    int fd_count, group_count, program_fd, uid, gid;
    char oom_score_adj[8];
    bool new_session;
    const char *step;
    int error;
};

/* The child's side -------------------------------------------------------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) >= 0;

    if (fd >= 0) close(fd);
    return ok;
}

/* Moves every source above the targets first, so that no target overwrites a source that is still needed. */
static bool arrange_fds(struct plan *plan)
{
    if (plan->program_fd >= 0 && plan->program_fd < plan->fd_count) {
        plan->program_fd = fcntl(plan->program_fd, F_DUPFD_CLOEXEC, plan->fd_count);
        if (plan->program_fd < 0) return false;
    }
    for (int i = 0; i < plan->fd_count; i++) {
        int source = (int)plan->fds[i];
        if (source < 0) source = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (source < 0) return false;
        if (source < plan->fd_count) source = fcntl(source, F_DUPFD_CLOEXEC, plan->fd_count);
        if (source < 0) return false;
        plan->fds[i] = source;
    }
    for (int i = 0; i < plan->fd_count; i++)
        if (dup2((int)plan->fds[i], i) < 0) return false;
    /* Standard streams, and descriptors that a test's parent left open, are not close-on-exec yet. */
    return syscall(SYS_close_range, plan->fd_count, UINT_MAX, CLOSE_RANGE_CLOEXEC) == 0;
}

/* Makes raw system calls: glibc's versions would signal other threads, and memory is shared. */
static bool become_user(const struct plan *plan)
{
    if (plan->uid < 0) return true;
    return syscall(SYS_setgroups, plan->group_count, plan->kernel_groups) == 0 &&
           syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) == 0 &&
           syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) == 0;
}

static void prepare_and_exec(struct plan *plan)
{
    sigset_t none;

    plan->step = "set oom_score_adj for";
    if (plan->oom_score_adj[0] && !write_text("/proc/self/oom_score_adj", plan->oom_score_adj)) return;
    plan->step = "start a session for";
    if (plan->new_session && setsid() < 0) return;
    plan->step = "arrange descriptors for";
    if (!arrange_fds(plan)) return;
    plan->step = "enter the directory for";
    if (plan->cwd && chdir(plan->cwd) < 0) return;
    plan->step = "change the user for";
    if (!become_user(plan)) return;
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    plan->step = "execute";
    if (plan->program_fd >= 0) syscall(SYS_execveat, plan->program_fd, "", plan->argv, plan->env, AT_EMPTY_PATH);
    else execve(plan->argv[0], plan->argv, plan->env);
}

static int child_main(void *argument)
{
    struct plan *plan = argument;

    prepare_and_exec(plan);
    plan->error = errno ? errno : EINVAL;
    _exit(127);
}

/* Our side ---------------------------------------------------------------------------------------------------------- */

/* Returns the pid, or -1 with the plan's step and error set. Blocked signals keep our handlers out of the child. */
static pid_t start_child(struct plan *plan, int flags)
{
    static char stack[64 * 1024] __attribute__((aligned(16)));
    sigset_t all, before;
    pid_t pid;

    plan->error = 0;
    plan->step = "start";
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD | flags, plan);
    if (pid < 0) plan->error = errno;
    else if (plan->error != 0) RETRY(waitpid(pid, NULL, 0));
    sigprocmask(SIG_SETMASK, &before, NULL);
    return plan->error ? -1 : pid;
}

static bool take_optional_fd(JSContext *ctx, JSValueConst options, const char *name, int *fd)
{
    JSValue value = JS_GetPropertyStr(ctx, options, name);
    int64_t number = -1;
    bool ok = !JS_IsException(value) && take_optional_int(ctx, value, 0, max_fds - 1, -1, &number);

    JS_FreeValue(ctx, value);
    *fd = (int)number;
    return ok;
}

static bool take_option_bool(JSContext *ctx, JSValueConst options, const char *name, bool *result)
{
    JSValue value = JS_GetPropertyStr(ctx, options, name);

    *result = JS_ToBool(ctx, value) == 1;
    JS_FreeValue(ctx, value);
    return !JS_IsException(value);
}

static bool take_option_ints(JSContext *ctx, JSValueConst options, const char *name, int64_t min, int64_t max,
                             int64_t *result, int room, int *count)
{
    JSValue value = JS_GetPropertyStr(ctx, options, name);

    *count = JS_IsException(value) ? -1 : JS_IsUndefined(value) ? 0 : take_ints(ctx, value, min, max, result, room);
    JS_FreeValue(ctx, value);
    return *count >= 0;
}

static bool take_user(JSContext *ctx, JSValueConst options, struct plan *plan)
{
    JSValue uid = JS_GetPropertyStr(ctx, options, "uid"), gid = JS_GetPropertyStr(ctx, options, "gid");
    int64_t user, group;
    bool ok = !JS_IsException(uid) && !JS_IsException(gid) && take_optional_int(ctx, uid, 0, INT32_MAX, -1, &user) &&
              take_optional_int(ctx, gid, 0, INT32_MAX, -1, &group) &&
              take_option_ints(ctx, options, "groups", 0, UINT32_MAX - 1, plan->groups, max_groups, &plan->group_count);

    JS_FreeValue(ctx, uid);
    JS_FreeValue(ctx, gid);
    if (!ok) return false;
    if ((user < 0) != (group < 0)) {
        JS_ThrowTypeError(ctx, "Cannot spawn: uid and gid are given together");
        return false;
    }
    plan->uid = (int)user;
    plan->gid = (int)group;
    for (int i = 0; i < plan->group_count; i++) plan->kernel_groups[i] = (gid_t)plan->groups[i];
    return true;
}

static bool take_oom_score(JSContext *ctx, JSValueConst options, struct plan *plan)
{
    JSValue value = JS_GetPropertyStr(ctx, options, "oomScoreAdj");
    int64_t score;
    bool ok = !JS_IsException(value) && take_optional_int(ctx, value, -1000, 1000, 0, &score);

    if (ok && !JS_IsUndefined(value)) snprintf(plan->oom_score_adj, sizeof plan->oom_score_adj, "%d", (int)score);
    JS_FreeValue(ctx, value);
    return ok;
}

static bool take_plan(JSContext *ctx, JSValueConst options, struct plan *plan)
{
    JSValue argv = JS_GetPropertyStr(ctx, options, "argv"), env = JS_GetPropertyStr(ctx, options, "env");
    JSValue cwd = JS_GetPropertyStr(ctx, options, "cwd");

    plan->argv = take_vector(ctx, argv);
    plan->env = plan->argv ? take_vector(ctx, env) : NULL;
    bool ok = plan->env && (JS_IsUndefined(cwd) || (plan->cwd = take_text(ctx, cwd)));
    JS_FreeValue(ctx, argv);
    JS_FreeValue(ctx, env);
    JS_FreeValue(ctx, cwd); /* the text holds a reference to the string */
    if (!ok) return false;
    if (!plan->argv[0]) {
        JS_ThrowTypeError(ctx, "Cannot spawn: argv is empty");
        return false;
    }
    ok = take_option_ints(ctx, options, "fds", -1, max_fds - 1, plan->fds, max_child_fds, &plan->fd_count) &&
         take_optional_fd(ctx, options, "programFd", &plan->program_fd) &&
         take_option_bool(ctx, options, "newSession", &plan->new_session) && take_user(ctx, options, plan) &&
         take_oom_score(ctx, options, plan);
    return ok;
}

static CALL(spawn)
{
    CALL_START;
    struct plan *plan = calloc(1, sizeof *plan);
    JSValue result = JS_EXCEPTION;
    pid_t pid;

    if (!plan) return JS_ThrowOutOfMemory(ctx);
    if (!JS_IsObject(argv[0])) JS_ThrowTypeError(ctx, "Cannot spawn: no options");
    else if (take_plan(ctx, argv[0], plan)) {
        pid = start_child(plan, 0);
        result = pid < 0 ? throw_errno(ctx, plan->error, plan->step, plan->argv[0]) : JS_NewInt32(ctx, pid);
    }
    if (plan->cwd) JS_FreeCString(ctx, plan->cwd);
    free_vector(plan->argv);
    free_vector(plan->env);
    free(plan);
    return result;
}

static bool write_map(pid_t pid, const char *file, const char *map)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return write_text(path, map);
}

/*
 * Starts a pause process in new namespaces that belong to its new users. It waits until the users are mapped and
 * becomes their root before it execs: otherwise a process that may trace it could act as the guest's root.
 */
static pid_t start_with_users(struct plan *plan, int flags, const char *uid_map, const char *gid_map)
{
    int release[2];
    char byte;
    pid_t pid;

    plan->step = "start";
    plan->error = 0;
    if (pipe2(release, O_CLOEXEC) < 0) {
        plan->error = errno;
        return -1;
    }
    /* The kernel makes the user namespace first, so that the others belong to it (user_namespaces(7)). */
    pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD | flags, 0, 0, 0, 0);
    if (pid == 0) {
        close(release[1]);
        if (RETRY(read(release[0], &byte, 1)) != 1) _exit(127);
        plan->uid = plan->gid = 0;
        prepare_and_exec(plan);
        _exit(127);
    }
    if (pid < 0) plan->error = errno;
    else {
        plan->step = "map the users of";
        if (!write_map(pid, "uid_map", uid_map) || !write_map(pid, "gid_map", gid_map)) plan->error = errno;
        else if (write(release[1], "", 1) != 1) plan->error = errno;
    }
    close(release[0]);
    close(release[1]); /* a child that still waits for the byte ends */
    return plan->error ? -1 : pid;
}

static CALL(spawn_pause)
{
    CALL_START;
    char *arguments[] = {"podvm-pause", NULL}, *environment[] = {NULL};
    struct plan plan = {.argv = arguments, .env = environment, .fd_count = 3, .uid = -1};
    const char *uid_map = NULL, *gid_map = NULL;
    int own_pids = JS_ToBool(ctx, argv[0]) == 1 ? CLONE_NEWPID : 0;
    bool own_users = !JS_IsUndefined(argv[1]);
    pid_t pid;

    if (own_users && !((uid_map = take_text(ctx, argv[1])) && (gid_map = take_text(ctx, argv[2])))) {
        if (uid_map) JS_FreeCString(ctx, uid_map);
        return JS_EXCEPTION;
    }
    plan.fds[0] = plan.fds[1] = plan.fds[2] = -1;
    plan.program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (plan.program_fd < 0) {
        plan.error = errno;
        plan.step = "open the program of";
        pid = -1;
    } else pid = own_users ? start_with_users(&plan, own_pids, uid_map, gid_map) : start_child(&plan, own_pids);
    if (plan.program_fd >= 0) close(plan.program_fd);
    if (gid_map) JS_FreeCString(ctx, gid_map);
    if (uid_map) JS_FreeCString(ctx, uid_map);
    return pid < 0 ? throw_errno(ctx, plan.error, plan.step, "the pause process") : JS_NewInt32(ctx, pid);
}

/* Holds a pod's shared namespaces, in a pid namespace as the first process. Reaps until it is killed. */
int pause_main(void)
{
    sigset_t signals;
    siginfo_t ignored;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
        sigwaitinfo(&signals, &ignored);
    }
}

static bool copy_file(int from, int to)
{
    for (;;) {
        ssize_t sent = RETRY(sendfile(to, from, NULL, 1 << 20));
        if (sent <= 0) return sent == 0;
    }
}

static CALL(sealed_copy)
{
    CALL_START;
    const char *path = take_text(ctx, argv[0]), *name;
    int from, to;
    bool ok;
    JSValue result;

    if (!path) return JS_EXCEPTION;
    name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    from = open(path, O_RDONLY | O_CLOEXEC);
    to = from < 0 ? -1 : memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (to < 0 && errno == EINVAL) to = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); /* before Linux 6.3 */
    ok = to >= 0 && copy_file(from, to) && fchmod(to, 0555) == 0 &&
         fcntl(to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0;
    result = ok ? JS_NewInt32(ctx, to) : throw_errno(ctx, errno, "copy into a memfd", path);
    if (!ok && to >= 0) close(to);
    if (from >= 0) close(from);
    JS_FreeCString(ctx, path);
    return result;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("spawn", 1, spawn),
    JS_CFUNC_DEF("spawnPause", 3, spawn_pause),
    JS_CFUNC_DEF("sealedCopy", 1, sealed_copy),
};
const struct call_table process_calls = {calls, COUNT(calls)};
