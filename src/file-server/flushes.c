/* Flushes run in threads, so that other requests do not wait for a disk. */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct flush {
    int64_t id;
    int fd, error, slot;
    bool is_data_only;
};

static int flush_results[2] = {-1, -1};
static bool is_under_way[max_flushes];

static int free_slot(void)
{
    for (int slot = 0; slot < max_flushes; slot++)
        if (!is_under_way[slot]) return slot;
    return -1;
}

static void *flush_main(void *argument)
{
    struct flush *flush = argument;

    flush->error = (flush->is_data_only ? fdatasync(flush->fd) : fsync(flush->fd)) < 0 ? errno : 0;
    close(flush->fd);
    if (RETRY(write(flush_results[1], flush, sizeof *flush)) < 0) _exit(70); /* the caller would wait forever */
    free(flush);
    return NULL;
}

/* Returns a descriptor to watch; `flushed` reads results from it. */
static CALL(open_flushes)
{
    CALL_START;
    if (flush_results[0] < 0 && pipe2(flush_results, O_CLOEXEC) < 0) return throw_errno(ctx, errno, "make a pipe", NULL);
    return JS_NewInt32(ctx, flush_results[0]);
}

static CALL(start_flush)
{
    CALL_START;
    pthread_attr_t attributes_of;
    pthread_t thread;
    int64_t id;
    int fd;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[2], 0, INT64_C(1) << 53, &id)) return JS_EXCEPTION;
    int slot = free_slot();
    if (slot < 0) return give_error(ctx, EAGAIN);
    struct flush *flush = malloc(sizeof *flush);
    if (!flush) return give_error(ctx, ENOMEM);
    *flush = (struct flush){.id = id, .slot = slot, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), .is_data_only = JS_ToBool(ctx, argv[1])};
    int error = flush->fd < 0 ? errno : 0;
    if (error == 0) {
        pthread_attr_init(&attributes_of);
        pthread_attr_setdetachstate(&attributes_of, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes_of, 64 << 10);
        error = pthread_create(&thread, &attributes_of, flush_main, flush);
        pthread_attr_destroy(&attributes_of);
        if (error != 0) close(flush->fd);
    }
    if (error != 0) {
        free(flush);
        return give_error(ctx, error);
    }
    is_under_way[slot] = true;
    begin_flush(slot);
    return JS_NewInt32(ctx, 0);
}

static CALL(flushed)
{
    CALL_START;
    struct flush flush;

    if (RETRY(read(flush_results[0], &flush, sizeof flush)) != sizeof flush) return throw_errno(ctx, EIO, "read a result", NULL);
    is_under_way[flush.slot] = false;
    end_flush(flush.slot);
    JSValue result = JS_NewObject(ctx);
    if (!JS_IsException(result) && give_int(ctx, result, "id", flush.id) && give_int(ctx, result, "error", flush.error)) return result;
    JS_FreeValue(ctx, result);
    return JS_EXCEPTION;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("openFlushes", 0, open_flushes),
    JS_CFUNC_DEF("startFlush", 3, start_flush),
    JS_CFUNC_DEF("flushed", 0, flushed),
};
const struct call_table flush_calls = {calls, COUNT(calls)};
