/* Requests to `podvm-enter`, and its reports; enter.c has the rest. */
#ifndef PODVM_ENTER_H
#define PODVM_ENTER_H

#include "guest.h"

#include <sys/ioctl.h>

/* A request is one byte with these descriptors, as enter-container.ts sends them. The last is there for a filter only. */
enum { stream_count = 3, least_fds = 7, most_fds = 8 };
extern int entry_fds[most_fds];
#define report_fd entry_fds[3]
#define plan_fd entry_fds[4]
#define process_fd entry_fds[5]
#define cgroup_fd entry_fds[6]
#define filter_fd entry_fds[7]

struct entry_plan {
    bool has_own_users;
    uid_t uid;
    gid_t gid, groups[max_groups];
    int group_count;
    /* Sets of capabilities; `ambient` is also the inheritable one. */
    uint64_t capabilities, ambient;
    bool no_new_privileges, has_filter, has_terminal;
    unsigned filter_flags;
    struct winsize size;
    const char *directory;
    char **variables, **command;
};

/*
 * Sends a message with an optional descriptor. The agent reads them until the last holder of the socket has closed it: this
 * program, and the process.
 */
void entry_report(char kind, const char *text, int fd);
/* Reports errno and its text, as crun writes them: `ENOENT MESSAGE: No such file or directory`. */
void entry_complain(const char *format, const char *what);
/* Complains, and ends the process. */
_Noreturn void entry_fail(const char *format, const char *what);
/* Words in the order of `planOf` in enter-container.ts. Limits are set at once, before other users are entered. */
void take_entry_plan(struct entry_plan *plan);

#endif
