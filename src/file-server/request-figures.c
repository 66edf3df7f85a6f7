/*
 * Figures about the requests: their number and duration by kind, for the host, which reads them from a page of memory
 * of this process. src/base/file-requests.ts describes the page.
 */
#define _GNU_SOURCE
#include "file-server.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { page_bytes = 4096, kinds = 6, kinds_at = 8, words_of_kind = 8, sum_at = 7, slots = 1 + max_flushes };

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

static const int64_t bounds_ns[sum_at - 1] = {100000, 1000000, 10000000, 100000000, 1000000000, INT64_C(10000000000)};

static volatile uint64_t *page;
/* Times at which what is under way began, 0 for none: the request, and the flushes. */
static int64_t began_ns[slots];

static int make_memory(unsigned flags)
{
    return (int)syscall(SYS_memfd_create, "podvm-requests-1", flags);
}

/* The memory can neither grow nor be written through its descriptor, which the host reads. */
bool open_request_figures(void)
{
    int fd = make_memory(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0) fd = make_memory(MFD_CLOEXEC | MFD_ALLOW_SEALING); /* before Linux 6.3 */
    if (fd < 0) return false;
    if (fd != figures_fd) {
        if (dup3(fd, figures_fd, O_CLOEXEC) < 0) return false;
        close(fd);
    }
    if (ftruncate(figures_fd, page_bytes) < 0) return false;
    void *made = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, figures_fd, 0);
    if (made == MAP_FAILED) return false;
    page = made;
    return fcntl(figures_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
}

static void set_began(int slot, int64_t ns)
{
    int64_t oldest = 0;

    began_ns[slot] = ns;
    for (int i = 0; i < slots; i++)
        if (began_ns[i] != 0 && (oldest == 0 || began_ns[i] < oldest)) oldest = began_ns[i];
    page[0] = (uint64_t)oldest;
}

static void end(int slot, int kind)
{
    int64_t took_ns = monotonic_ns() - began_ns[slot];
    volatile uint64_t *words = page + kinds_at + kind * words_of_kind;
    int bucket = 0;

    while (bucket < COUNT(bounds_ns) && took_ns > bounds_ns[bucket]) bucket++;
    words[bucket]++;
    words[sum_at] += (uint64_t)took_ns;
    set_began(slot, 0);
}

void begin_flush(int flush)
{
    set_began(1 + flush, monotonic_ns());
}

void end_flush(int flush)
{
    enum { kind_flush = 4 };

    end(1 + flush, kind_flush);
}

static CALL(begin_request)
{
    CALL_START;
    UNUSED(ctx);
    set_began(0, monotonic_ns());
    return JS_UNDEFINED;
}

static CALL(end_request)
{
    CALL_START;
    int64_t kind;

    if (!take_int(ctx, argv[0], -1, kinds - 1, &kind)) return JS_EXCEPTION;
    if (kind < 0) set_began(0, 0);
    else end(0, (int)kind);
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("beginRequest", 0, begin_request),
    JS_CFUNC_DEF("endRequest", 1, end_request),
};
const struct call_table figure_calls = {calls, COUNT(calls)};
