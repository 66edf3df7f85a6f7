/*
 * The engine: QuickJS with its own loop and calls. It runs the bytecode embedded at build time and no other code. The
 * parser is linked (it is in one object file with the interpreter) but never attached: eval and Function throw.
 */
#define _GNU_SOURCE
#include "engine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

/* Numbers of constants.ts: another architecture must fail here and not in the guest. */
#define SAME(name, value) _Static_assert((long)(name) == (long)(value), #name " differs from constants.ts")
SAME(O_RDONLY, 0); SAME(O_WRONLY, 1); SAME(O_RDWR, 2); SAME(O_CREAT, 0100); SAME(O_EXCL, 0200); SAME(O_NOCTTY, 0400);
SAME(O_TRUNC, 01000); SAME(O_APPEND, 02000); SAME(O_NONBLOCK, 04000); SAME(O_DIRECTORY, 0200000);
SAME(O_NOFOLLOW, 0400000); SAME(O_PATH, 010000000);
SAME(MS_RDONLY, 1); SAME(MS_NOSUID, 2); SAME(MS_NODEV, 4); SAME(MS_NOEXEC, 8); SAME(MS_REMOUNT, 32);
SAME(MS_NOATIME, 1024); SAME(MS_BIND, 4096); SAME(MS_MOVE, 8192); SAME(MS_REC, 16384); SAME(MS_PRIVATE, 1 << 18);
SAME(MS_SLAVE, 1 << 19); SAME(MS_SHARED, 1 << 20); SAME(MS_RELATIME, 1 << 21);
SAME(MNT_FORCE, 1); SAME(MNT_DETACH, 2); SAME(UMOUNT_NOFOLLOW, 8);
SAME(SIGHUP, 1); SAME(SIGINT, 2); SAME(SIGQUIT, 3); SAME(SIGKILL, 9); SAME(SIGTERM, 15); SAME(SIGCHLD, 17);
SAME(EAGAIN, 11);
SAME(CAP_SYS_RESOURCE, 24);

/* The bytecode that compile.c made of the bundle. */
__asm__(".section .rodata\n.balign 16\nagent_code: .incbin \"agent.bytecode\"\nagent_code_end: .byte 0\n.previous\n");
extern const uint8_t agent_code[], agent_code_end[];

static const size_t heap_limit = 64 << 20;
static const size_t stack_limit = 512 << 10;

static CALL(print)
{
    CALL_START;
    size_t length;
    const char *text = JS_ToCStringLen(ctx, &length, argv[0]);

    if (!text) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        return JS_UNDEFINED;
    }
    print_line(text, length);
    JS_FreeCString(ctx, text);
    return JS_UNDEFINED;
}

static int64_t resident_kib(void)
{
    char text[128];
    long long total, resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (fd >= 0) close(fd);
    if (length <= 0) return 0;
    text[length] = '\0';
    return sscanf(text, "%lld %lld", &total, &resident) == 2 ? resident * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}

static int64_t count_descriptors(void)
{
    DIR *stream = opendir("/proc/self/fd");
    int64_t count = -3; /* `.`, `..` and the stream itself */

    if (!stream) return 0;
    while (readdir(stream)) count++;
    closedir(stream);
    return count;
}

/* Bytes that the runtime has allocated. JS_ComputeMemoryUsage would walk the whole heap. */
static size_t heap_bytes;

static void *counted_malloc(JSMallocState *state, size_t size)
{
    void *memory;

    if (size == 0 || state->malloc_size > state->malloc_limit || size > state->malloc_limit - state->malloc_size) return NULL;
    memory = malloc(size);
    if (!memory) return NULL;
    state->malloc_count++;
    state->malloc_size += malloc_usable_size(memory);
    heap_bytes = state->malloc_size;
    return memory;
}

static void counted_free(JSMallocState *state, void *memory)
{
    if (!memory) return;
    state->malloc_count--;
    state->malloc_size -= malloc_usable_size(memory);
    heap_bytes = state->malloc_size;
    free(memory);
}

static void *counted_realloc(JSMallocState *state, void *memory, size_t size)
{
    size_t before;
    void *moved;

    if (!memory) return counted_malloc(state, size);
    if (size == 0) {
        counted_free(state, memory);
        return NULL;
    }
    before = malloc_usable_size(memory);
    if (size > before && (state->malloc_size > state->malloc_limit || size - before > state->malloc_limit - state->malloc_size))
        return NULL;
    moved = realloc(memory, size);
    if (!moved) return NULL;
    state->malloc_size = state->malloc_size - before + malloc_usable_size(moved);
    heap_bytes = state->malloc_size;
    return moved;
}

static size_t usable_size(const void *memory)
{
    return malloc_usable_size((void *)(uintptr_t)memory);
}

static CALL(memory_use)
{
    CALL_START;
    JSValue use = JS_NewObject(ctx);

    if (JS_IsException(use)) return use;
    give_int(ctx, use, "residentKiB", resident_kib());
    give_int(ctx, use, "heapBytes", (int64_t)heap_bytes);
    give_int(ctx, use, "descriptors", count_descriptors());
    return use;
}

static CALL(collect_garbage)
{
    CALL_START;
    JS_RunGC(JS_GetRuntime(ctx));
    malloc_trim(0);
    return JS_UNDEFINED;
}

/* Whether this is PID 1 of a machine; a jailed program of the host may be PID 1 of a namespace. */
static bool is_init;

static _Noreturn void power_off_or_exit(int code)
{
    if (is_init) {
        sync();
        reboot(RB_POWER_OFF);
    }
    _exit(code);
}

static CALL(exit_agent)
{
    CALL_START;
    int64_t code;

    if (!take_int(ctx, argv[0], 0, 255, &code)) return JS_EXCEPTION;
    power_off_or_exit((int)code);
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("print", 1, print),
    JS_CFUNC_DEF("memoryUse", 0, memory_use),
    JS_CFUNC_DEF("collectGarbage", 0, collect_garbage),
    JS_CFUNC_DEF("exit", 1, exit_agent),
};
const struct call_table runtime_calls = {calls, COUNT(calls)};

/* Ends the machine after a bug in the C, without sync: our memory cannot be trusted. */
static void on_fatal_signal(int signal)
{
    static const char text[] = "podvm agent: fatal signal, powering off\n";

    if (write(2, text, sizeof text - 1) < 0) errno = 0;
    reboot(RB_POWER_OFF);
    _exit(128 + signal);
}

static void catch_fatal_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    static char stack[16 * 1024];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND};

    sigaltstack(&alternate, NULL);
    for (int i = 0; i < COUNT(signals); i++) sigaction(signals[i], &action, NULL);
}

static JSContext *make_context(void)
{
    static const JSMallocFunctions counted = {counted_malloc, counted_free, counted_realloc, usable_size};
    JSRuntime *rt = JS_NewRuntime2(&counted, NULL);
    JSContext *ctx = rt ? JS_NewContextRaw(rt) : NULL;

    if (!ctx) return NULL;
    JS_SetMemoryLimit(rt, heap_limit);
    JS_SetMaxStackSize(rt, stack_limit);
    JS_AddIntrinsicBaseObjects(ctx);
    JS_AddIntrinsicDate(ctx);
    JS_AddIntrinsicRegExpCompiler(ctx);
    JS_AddIntrinsicRegExp(ctx);
    JS_AddIntrinsicJSON(ctx);
    JS_AddIntrinsicProxy(ctx);
    JS_AddIntrinsicMapSet(ctx);
    JS_AddIntrinsicTypedArrays(ctx);
    JS_AddIntrinsicPromise(ctx);
    return ctx;
}

/* Makes the global `podvmEngine` with its calls; native.ts removes it from the global object. */
static bool add_engine(JSContext *ctx, int argc, char **argv, const struct call_table *const *tables)
{
    JSValue global = JS_GetGlobalObject(ctx), engine = JS_NewObject(ctx), arguments = JS_NewArray(ctx);

    for (; *tables; tables++) JS_SetPropertyFunctionList(ctx, engine, (*tables)->calls, (*tables)->count);
    for (int i = 0; i < argc; i++) JS_SetPropertyUint32(ctx, arguments, (uint32_t)i, give_text(ctx, argv[i], strlen(argv[i])));
    JS_SetPropertyStr(ctx, engine, "args", arguments);
    JS_SetPropertyStr(ctx, engine, "engineName", JS_NewString(ctx, ENGINE_NAME));
    give_int(ctx, engine, "pid", getpid());
    bool ok = JS_SetPropertyStr(ctx, global, "podvmEngine", engine) >= 0;
    JS_FreeValue(ctx, global);
    return ok;
}

static bool run_code(JSContext *ctx)
{
    JSValue code = JS_ReadObject(ctx, agent_code, (size_t)(agent_code_end - agent_code), JS_READ_OBJ_BYTECODE | JS_READ_OBJ_ROM_DATA);
    JSValue result = JS_IsException(code) ? code : JS_EvalFunction(ctx, code);
    bool ok = !JS_IsException(result);

    if (!ok) report_exception(ctx);
    JS_FreeValue(ctx, result);
    return ok;
}

/* Opens 0 to 2 where they are closed: without /dev/console the kernel starts PID 1 without standard streams. */
static void reserve_standard_fds(void)
{
    int fd;

    do fd = memfd_create("nothing", 0);
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
}

void run_engine(int argc, char **argv, const struct call_table *const *tables, bool (*start)(void))
{
    JSContext *ctx;

    reserve_standard_fds();
    is_init = getpid() == 1 && argc > 0 && strcmp(argv[0], "/init") == 0;
    if (is_init) catch_fatal_signals();
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    mallopt(M_ARENA_MAX, 1);
    /* Constant: glibc would raise them with use and keep the memory of a burst. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
    ctx = make_context();
    if (!ctx || !loop_start(ctx) || (start && !start()) || !add_engine(ctx, argc, argv, tables) || !run_code(ctx)) {
        static const char text[] = "podvm: cannot start";
        print_line(text, sizeof text - 1);
        power_off_or_exit(70);
    }
    loop_run(ctx);
    power_off_or_exit(71);
}
