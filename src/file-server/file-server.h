/* Functions that the C files of the file server share. */
#ifndef PODVM_FILE_SERVER_H
#define PODVM_FILE_SERVER_H

#include "engine.h"

/* powers.c: the user that the file server acts as. */
int raise_powers(void);
int settle_powers(void);
bool join_groups(const int *fds, int count);
bool join_group(gid_t group);
void leave_groups(void);

enum {
    filter_fd = 5,  /* the list of system calls (storage/file-server.ts) */
    figures_fd = 6, /* the figures about requests */
    max_flushes = 8,
};

/* request-figures.c */
bool open_request_figures(void);
/* A flush of a number below `max_flushes` begins, or ends. */
void begin_flush(int flush);
void end_flush(int flush);

extern const struct call_table attribute_calls, figure_calls, flush_calls, lock_calls, look_calls, name_calls, open_file_calls, power_calls;

#endif
