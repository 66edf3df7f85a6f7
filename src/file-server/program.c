/* The file server's program. */
#define _GNU_SOURCE
#include "file-server.h"

#include <sys/syscall.h>
#include <unistd.h>

static const struct call_table *const tables[] = {
    &handler_calls, &timer_calls, &loop_calls,      &descriptor_calls, &runtime_calls, &look_calls,  &name_calls,
    &attribute_calls,             &open_file_calls, &flush_calls,      &lock_calls,    &power_calls, &figure_calls, NULL,
};

/* Closes all but the client, the log and the list of system calls (storage/file-server.ts). */
static void close_inherited(void)
{
    syscall(SYS_close_range, 3, filter_fd - 1, 0);
    syscall(SYS_close_range, filter_fd + 1, ~0U, 0);
}

int main(int argc, char **argv)
{
    close_inherited();
    run_engine(argc, argv, tables, open_request_figures);
}
