/*
 * The C half of the guest's engine: what engine.ts declares. It runs as root beside hostile containers, so every value
 * from JavaScript passes one of the `take_*` functions, which check type and range before anything is converted.
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
    max_arguments = 4096,   /* of one spawned program, and as many variables */
    max_child_fds = 64,
    max_groups = 1024,
    max_received_fds = 16,
    max_timers = 65536,
    again = -1,
};

/* The signature every call of the table has. */
#define CALL(name) JSValue name(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
#define CALL_START UNUSED(self); UNUSED(argc); UNUSED(argv)

/* Values from JavaScript (values.c). Each returns false with an exception pending. */
bool take_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result);
bool take_optional_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t absent, int64_t *result);
bool take_fd(JSContext *ctx, JSValueConst value, int *fd);
/* A string without NUL; give back with JS_FreeCString. NULL with an exception pending. */
const char *take_text(JSContext *ctx, JSValueConst value);
/* The bytes of a Uint8Array; valid until JavaScript runs again. */
bool take_bytes(JSContext *ctx, JSValueConst value, uint8_t **bytes, size_t *length);
/* The same, narrowed by an optional offset and length. */
bool take_slice(JSContext *ctx, JSValueConst value, JSValueConst offset, JSValueConst length, uint8_t **bytes, size_t *size);
/* A JavaScript array of strings as a NULL-terminated malloc'd vector; free_vector gives it back. */
char **take_vector(JSContext *ctx, JSValueConst value);
void free_vector(char **vector);
/* A JavaScript array of integers in a range; at most `room`. Returns their count or -1 with an exception pending. */
int take_ints(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result, int room);

/* Values to JavaScript (values.c, text.c). */
JSValue give_bytes(JSContext *ctx, const uint8_t *bytes, size_t length);
/* Lossy: what is no UTF-8 becomes U+FFFD. */
JSValue give_text(JSContext *ctx, const char *text, size_t length);
/* Throws the SystemError of `error`; `what` may be NULL. */
JSValue throw_errno(JSContext *ctx, int error, const char *verb, const char *what);
/* Sets a property of an object we make; false with an exception pending (out of memory). */
bool give_int(JSContext *ctx, JSValueConst object, const char *name, int64_t value);

/* loop.c */
bool loop_start(JSContext *ctx);
int loop_run(JSContext *ctx);
void loop_unwatch(JSContext *ctx, int fd);
void report_exception(JSContext *ctx);
void print_line(const char *text, size_t length);
int64_t monotonic_ns(void);

/* processes.c */
bool processes_start(void);
/* Calls the exit handler for at most 64 ended children; true if there may be more. */
bool reap(JSContext *ctx);
int pause_main(void);

/* kernel.c: a process that mounts may have ended. */
void aside_ended(pid_t pid);

/* modprobe.c; the path is also in module-requests.ts. */
#define MODPROBE_SOCKET "/run/podvm/modprobe.sock"
int modprobe_main(int argc, char **argv);

/* powers.c: as whom the file server acts. */
int raise_powers(void);
int settle_powers(void);
bool join_groups(const int *fds, int count);
bool join_group(gid_t group);
void leave_groups(void);

/* shares.c */
int pump_main(void);
int look_main(int argc, char **argv);
int unmount_main(int argc, char **argv);

extern int epoll_fd;
extern int child_signal_fd;
extern JSValue on_exit_handler;
extern JSValue on_error_handler;
/* Calls a handler with at most one argument (consumed), then settles promises; reports what it throws. */
bool call_handler(JSContext *ctx, JSValueConst handler, JSValue argument);

/* The call tables, one per file. */
extern const JSCFunctionListEntry loop_calls[], descriptor_calls[], file_calls[], beneath_calls[], process_calls[],
    socket_calls[], kernel_calls[], namespace_calls[], text_calls[], runtime_calls[], served_calls[], power_calls[];
extern const int loop_call_count, descriptor_call_count, file_call_count, beneath_call_count, process_call_count,
    socket_call_count, kernel_call_count, namespace_call_count, text_call_count, runtime_call_count,
    served_call_count, power_call_count;

/* Retries a call for as long as a signal interrupts it. */
#define RETRY(expression)                                                                                             \
    __extension__({                                                                                                    \
        __typeof__(expression) retry_result;                                                                           \
        do retry_result = (expression);                                                                                \
        while (retry_result == -1 && errno == EINTR);                                                                  \
        retry_result;                                                                                                  \
    })

#endif
