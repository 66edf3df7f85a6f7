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

extern const struct call_table attribute_calls, flush_calls, lock_calls, look_calls, name_calls, open_file_calls, power_calls;

#endif
