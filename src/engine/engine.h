/*
 * The C half of the engine: the calls that engine.ts declares. It runs as root beside hostile containers, so every
 * value from JavaScript passes one of the `take_*` functions, which check type and range before a conversion. Calls
 * between files go one way (tools/c-calls.test.ts), from the lowest: values, text, console, handlers, timers, loop,
 * engine, program.
 */
#ifndef PODVM_ENGINE_H
#define PODVM_ENGINE_H

#include <quickjs/quickjs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define UNUSED(name) ((void)(name))

enum {
    max_fds = 1 << 20,      /* highest descriptor we handle, fs.nr_open's default */
    max_list_names = 65536, /* names of one directory */
    max_arguments = 4096,   /* arguments of one spawned program; also its variables */
    max_child_fds = 64,
    max_groups = 1024,
    max_received_fds = 16,
    max_timers = 65536,
    again = -1,
};

/* The signature of every call in a table. */
#define CALL(name) JSValue name(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
#define CALL_START UNUSED(self); UNUSED(argc); UNUSED(argv)

/* Values from JavaScript (values.c). Each returns false with an exception pending. */
bool take_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result);
bool take_optional_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t absent, int64_t *result);
bool take_fd(JSContext *ctx, JSValueConst value, int *fd);
/* A string without NUL, to free with JS_FreeCString. NULL with an exception pending. */
const char *take_text(JSContext *ctx, JSValueConst value);
/* The bytes of a Uint8Array; valid until JavaScript runs again. */
bool take_bytes(JSContext *ctx, JSValueConst value, uint8_t **bytes, size_t *length);
/* The bytes of a Uint8Array, narrowed by an optional offset and length. */
bool take_slice(JSContext *ctx, JSValueConst value, JSValueConst offset, JSValueConst length, uint8_t **bytes, size_t *size);
/* An array of strings as a NULL-terminated vector, to free with free_vector. */
char **take_vector(JSContext *ctx, JSValueConst value);
void free_vector(char **vector);
/* An array of at most `room` integers in a range. Returns their count, or -1 with an exception pending. */
int take_ints(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result, int room);

/* Values to JavaScript (values.c, text.c). */
JSValue give_bytes(JSContext *ctx, const uint8_t *bytes, size_t length);
/* Makes a string; bytes that are not UTF-8 become U+FFFD. */
JSValue give_text(JSContext *ctx, const char *text, size_t length);
/* Throws the SystemError of `error`; `what` may be NULL. */
JSValue throw_errno(JSContext *ctx, int error, const char *verb, const char *what);
/* Sets a property of a new object; false with an exception pending (out of memory). */
bool give_int(JSContext *ctx, JSValueConst object, const char *name, int64_t value);

/* Replaces a handler that C keeps, called `name`. Undefined, or an exception if the value is not a function. */
JSValue keep_handler(JSContext *ctx, JSValueConst value, const char *name, JSValue *handler);

/* console.c */
/* Writes one line to descriptor 2: at most 1 KiB, control characters escaped. Never blocks. */
void print_line(const char *text, size_t length);

/* handlers.c */
void handlers_start(JSContext *ctx);
int64_t monotonic_ns(void);
/* Calls a handler with one argument (consumed), then settles promises. Reports exceptions. */
bool call_handler(JSContext *ctx, JSValueConst handler, JSValue argument);
/* Runs the promise jobs that a call left behind, then reports unhandled rejections. Returns whether jobs are left. */
bool settle(JSContext *ctx);
void report_exception(JSContext *ctx);

/* timers.c */
/*
 * Fires the timers that are due at the start, each once: one that is set by a handler with delay 0 waits for the next
 * turn.
 */
void fire_timers(JSContext *ctx);
/* Time to the earliest timer, for epoll: -1 without one. */
int timer_wait_ms(void);

/* loop.c */
bool loop_start(JSContext *ctx);
/* Calls `reap` when the signalfd is readable, and again each turn for as long as it returns true. */
bool loop_watch_children(int signal_fd, bool (*reap)(JSContext *ctx));
int loop_run(JSContext *ctx);
void loop_unwatch(JSContext *ctx, int fd);
/* Whether the loop itself needs the descriptor, which JavaScript can then neither watch nor close. */
bool loop_uses(int fd);

/* The calls of a C file for JavaScript. */
struct call_table {
    const JSCFunctionListEntry *calls;
    int count;
};
extern const struct call_table descriptor_calls, handler_calls, loop_calls, runtime_calls, timer_calls;

/* engine.c */
/*
 * Runs the embedded bytecode with these tables of calls (a list that ends with NULL). `start`, if any, is called before
 * it; false ends the program. Does not return.
 */
_Noreturn void run_engine(int argc, char **argv, const struct call_table *const *tables, bool (*start)(void));

/* Retries a call that a signal interrupted. */
#define RETRY(expression)                                                                                             \
    __extension__({                                                                                                    \
        __typeof__(expression) retry_result;                                                                           \
        do retry_result = (expression);                                                                                \
        while (retry_result == -1 && errno == EINTR);                                                                  \
        retry_result;                                                                                                  \
    })

#endif
