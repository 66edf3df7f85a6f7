/* Reads the plans for `podvm-enter` (enter.c), and writes its reports. */
#define _GNU_SOURCE
#include "enter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int entry_fds[most_fds];

/* Reports --------------------------------------------------------------------------------------------------------- */

void entry_report(char kind, const char *text, int fd)
{
    struct iovec parts[] = {{.iov_base = &kind, .iov_len = 1}, {.iov_base = (char *)text, .iov_len = strlen(text)}};
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    if (fd >= 0) {
        control.aligned = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(&control.aligned), &fd, sizeof fd);
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control;
    }
    (void)RETRY(sendmsg(report_fd, &message, MSG_NOSIGNAL));
}

void entry_complain(const char *format, const char *what)
{
    int error = errno;
    const char *name = strerrorname_np(error);
    char message[1024], text[1200];

    snprintf(message, sizeof message, format, what);
    snprintf(text, sizeof text, "%s %s: %s", name ? name : "EUNKNOWN", message, strerror(error));
    entry_report('!', text, -1);
}

_Noreturn void entry_fail(const char *format, const char *what)
{
    entry_complain(format, what);
    _exit(127);
}

/* The plan -------------------------------------------------------------------------------------------------------- */

static char *words, *words_end;

static char *next_word(void)
{
    char *word = words;

    if (words >= words_end) {
        errno = EINVAL;
        entry_fail("the plan of a process has %s", "too few words");
    }
    words += strlen(words) + 1;
    return word;
}

static unsigned long long next_number(void)
{
    return strtoull(next_word(), NULL, 10);
}

/* Takes the next of several numbers separated by one character; false at the end. */
static bool next_of(char **list, unsigned long long *number)
{
    char *end;

    if (!**list) return false;
    *number = strtoull(*list, &end, 10);
    *list = *end ? end + 1 : end;
    return true;
}

static uint64_t next_set(void)
{
    unsigned long long bit;
    uint64_t set = 0;

    for (char *list = next_word(); next_of(&list, &bit);)
        if (bit < 64) set |= 1ULL << bit;
    return set;
}

static void set_limits(void)
{
    unsigned long long resource, soft, hard;

    for (char *list = next_word(); next_of(&list, &resource) && next_of(&list, &soft) && next_of(&list, &hard);) {
        struct rlimit limit = {.rlim_cur = (rlim_t)soft, .rlim_max = (rlim_t)hard};
        if (setrlimit((int)resource, &limit) < 0) entry_fail("setrlimit%s", "");
    }
}

static void read_words(void)
{
    struct stat status;
    size_t size = 0;
    ssize_t got;

    if (fstat(plan_fd, &status) < 0) entry_fail("read the plan of a process%s", "");
    words = malloc((size_t)status.st_size + 1);
    if (!words) entry_fail("read the plan of a process%s", "");
    while (size < (size_t)status.st_size) {
        got = RETRY(read(plan_fd, words + size, (size_t)status.st_size - size));
        if (got <= 0) entry_fail("read the plan of a process%s", "");
        size += (size_t)got;
    }
    words[size] = 0;
    words_end = words + size;
}

/* Takes the strings of a vector, in place. */
static char **next_vector(size_t count)
{
    char **vector = calloc(count + 1, sizeof *vector);

    if (!vector) entry_fail("read the plan of a process%s", "");
    for (size_t at = 0; at < count; at++) vector[at] = next_word();
    return vector;
}

void take_entry_plan(struct entry_plan *plan)
{
    unsigned long long group;
    size_t variables, arguments;

    read_words();
    plan->has_own_users = next_number() == 1;
    plan->uid = (uid_t)next_number();
    plan->gid = (gid_t)next_number();
    for (char *list = next_word(); plan->group_count < max_groups && next_of(&list, &group);)
        plan->groups[plan->group_count++] = (gid_t)group;
    plan->capabilities = next_set();
    plan->ambient = next_set();
    plan->no_new_privileges = next_number() == 1;
    plan->has_filter = next_number() == 1;
    plan->filter_flags = (unsigned)next_number();
    set_limits();
    plan->has_terminal = next_number() == 1;
    plan->size.ws_col = (unsigned short)next_number();
    plan->size.ws_row = (unsigned short)next_number();
    plan->directory = next_word();
    variables = (size_t)next_number();
    arguments = (size_t)next_number();
    plan->variables = next_vector(variables);
    plan->command = next_vector(arguments);
    if (words != words_end || !plan->command[0]) {
        errno = EINVAL;
        entry_fail("the plan of a process has %s", "other words");
    }
}
