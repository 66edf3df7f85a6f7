/*
 * `podvm-enter`: runs a further process in a container, as `crun exec` does. A runtime that is started for it would parse
 * the container's configuration each time, and fork twice more.
 *
 * The program makes the process as a child of the agent, in the container's cgroup and pid namespace, reports its pid and
 * ends. Containers cannot see it. They see the process, which shares no memory with the agent and, until it executes the
 * command, can only be traced with CAP_SYS_PTRACE (PR_SET_DUMPABLE), as with other runtimes.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Descriptors after the standard streams, as enter-container.ts gives them. The last is there for a filter only. */
enum { report_fd = 3, plan_fd, process_fd, cgroup_fd, filter_fd };

struct plan {
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

/* Reports --------------------------------------------------------------------------------------------------------- */

/* The agent reads these messages until the last holder of this socket has closed it: `podvm-enter`, and the process. */
static void report(char kind, const char *text, int fd)
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

/* Ends with errno and its text, as crun writes them: `ENOENT MESSAGE: No such file or directory`. */
static _Noreturn void fail(const char *format, const char *what)
{
    int error = errno;
    const char *name = strerrorname_np(error);
    char message[1024], text[1200];

    snprintf(message, sizeof message, format, what);
    snprintf(text, sizeof text, "%s %s: %s", name ? name : "EUNKNOWN", message, strerror(error));
    report('!', text, -1);
    _exit(127);
}

/* The plan -------------------------------------------------------------------------------------------------------- */

static char *words, *words_end;

static char *next_word(void)
{
    char *word = words;

    if (words >= words_end) {
        errno = EINVAL;
        fail("the plan of a process has %s", "too few words");
    }
    words += strlen(words) + 1;
    return word;
}

static unsigned long long next_number(void)
{
    return strtoull(next_word(), NULL, 10);
}

/* The next of numbers with a character between them; false at the end. */
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
        if (setrlimit((int)resource, &limit) < 0) fail("setrlimit%s", "");
    }
}

static void read_words(void)
{
    struct stat status;
    size_t size = 0;
    ssize_t got;

    if (fstat(plan_fd, &status) < 0) fail("read the plan of a process%s", "");
    words = malloc((size_t)status.st_size + 1);
    if (!words) fail("read the plan of a process%s", "");
    while (size < (size_t)status.st_size) {
        got = RETRY(read(plan_fd, words + size, (size_t)status.st_size - size));
        if (got <= 0) fail("read the plan of a process%s", "");
        size += (size_t)got;
    }
    words[size] = 0;
    words_end = words + size;
}

/* The strings of a vector, in place. */
static char **next_vector(size_t count)
{
    char **vector = calloc(count + 1, sizeof *vector);

    if (!vector) fail("read the plan of a process%s", "");
    for (size_t at = 0; at < count; at++) vector[at] = next_word();
    return vector;
}

/* Words in the order of `planOf` in enter-container.ts. Limits are set at once, before other users are entered. */
static void take_plan(struct plan *plan)
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
        fail("the plan of a process has %s", "other words");
    }
}

/* The process ----------------------------------------------------------------------------------------------------- */

static void open_terminal(const struct plan *plan)
{
    char path[64];
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

    if (master < 0) fail("open `%s`", "/dev/ptmx");
    if (unlockpt(master) < 0 || ptsname_r(master, path, sizeof path) != 0) fail("unlock `%s`", "/dev/ptmx");
    if (plan->size.ws_col && plan->size.ws_row && ioctl(master, TIOCSWINSZ, &plan->size) < 0) fail("set the size of `%s`", path);
    slave = open(path, O_RDWR | O_CLOEXEC);
    if (slave < 0) fail("open `%s`", path);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0) fail("use `%s`", path);
    if (ioctl(0, TIOCSCTTY, 0) < 0) fail("control `%s`", path);
    if (plan->uid && chown(path, plan->uid, (gid_t)-1) < 0) fail("chown `%s`", path);
    report('t', "", master);
    close(slave);
    close(master);
}

/* A directory of another mount namespace has no absolute path (CVE-2024-21626). */
static bool enter_directory(const char *directory)
{
    char path[PATH_MAX];

    if (chdir(directory) < 0) return false;
    if (syscall(SYS_getcwd, path, sizeof path) > 0 && path[0] == '/') return true;
    if (chdir("/") == 0) errno = ENOENT;
    return false;
}

enum finding { found, missing, not_executable, not_regular, unreadable };

static enum finding look_at(const char *path)
{
    struct stat status;
    int error;

    if (eaccess(path, X_OK) < 0) {
        error = errno;
        if (error == EACCES && eaccess(path, F_OK) == 0) return not_executable;
        errno = error;
        return error == ENOENT ? missing : unreadable;
    }
    if (stat(path, &status) < 0) return unreadable;
    return S_ISREG(status.st_mode) ? found : not_regular;
}

static const char *variable_of(char *const *variables, const char *name)
{
    size_t length = strlen(name);

    for (; *variables; variables++)
        if (strncmp(*variables, name, length) == 0 && (*variables)[length] == '=') return *variables + length + 1;
    return NULL;
}

/* Looks for a program without a slash in its name in the PATH of the process; `path` is the one that was looked at last. */
static enum finding search(const struct plan *plan, const char *name, char path[PATH_MAX])
{
    const char *directory = variable_of(plan->variables, "PATH");
    enum finding last = missing, one;

    errno = ENOENT;
    while (directory && *directory) {
        int length = (int)strcspn(directory, ":"), error = errno;
        if (snprintf(path, PATH_MAX, "%.*s/%s", length ? length : 1, length ? directory : ".", name) < PATH_MAX) {
            one = look_at(path);
            if (one == found) return found;
            if (one == missing) errno = error;
            else last = one;
        }
        directory += length;
        if (*directory) directory++;
    }
    return last;
}

static enum finding find_program(const struct plan *plan, char path[PATH_MAX])
{
    const char *name = plan->command[0];
    const char *parent = strcmp(plan->directory, "/") == 0 ? "" : plan->directory;
    int length = 0;

    if (name[0] && !strchr(name, '/')) return search(plan, name, path);
    length = name[0] == '/' ? snprintf(path, PATH_MAX, "%s", name) : snprintf(path, PATH_MAX, "%s/%s", parent, name);
    if (name[0] && length < PATH_MAX) return look_at(path);
    errno = name[0] ? ENAMETOOLONG : ENOENT;
    return name[0] ? unreadable : missing;
}

/* With crun's words, by which the host knows what it cannot run (exec-refusal.ts). */
static _Noreturn void fail_without_program(const char *name, enum finding finding)
{
    bool is_searched = !strchr(name, '/');

    if (finding == missing) fail(is_searched ? "executable file `%s` not found in $PATH" : "executable file `%s` not found", name);
    if (finding == unreadable) fail("cannot open `%s`", name);
    errno = EPERM;
    fail(finding == not_executable ? "the path `%s` exists but it is not executable" : "the path `%s` is not a regular file", name);
}

static void set_filter(const struct plan *plan)
{
    static struct sock_filter instructions[BPF_MAXINSNS];
    struct sock_fprog filter = {.filter = instructions};
    ssize_t size;

    if (!plan->has_filter) return;
    size = RETRY(read(filter_fd, instructions, sizeof instructions));
    filter.len = (unsigned short)(size > 0 ? (size_t)size / sizeof instructions[0] : 0);
    if (size <= 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, plan->filter_flags, &filter) < 0) fail("set the seccomp filter%s", "");
}

/* So that another user can open its own /dev/stdout. EINVAL: the pod's users do not have this one. */
static void own_streams(const struct plan *plan)
{
    for (int fd = 0; fd < 3; fd++)
        if (!isatty(fd) && fchown(fd, plan->uid, plan->gid) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
            fail("change the owner of the standard streams%s", "");
}

static void become_user(const struct plan *plan)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    for (int bit = 0; bit < 64; bit++)
        if (!(plan->capabilities >> bit & 1) && prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0) {
            if (errno != EINVAL) fail("drop a capability%s", "");
            break; /* the kernel has no more */
        }
    for (int half = 0; half < 2; half++) {
        sets[half].effective = sets[half].permitted = (uint32_t)(plan->capabilities >> (32 * half));
        sets[half].inheritable = (uint32_t)(plan->ambient >> (32 * half));
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) fail("keep capabilities%s", "");
    if (syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0) fail("change the group%s", "");
    if (syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0) fail("change the user%s", "");
    if (syscall(SYS_capset, &header, sets) < 0) fail("set capabilities%s", "");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int bit = 0; bit < 64; bit++)
        if (plan->ambient >> bit & 1) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0);
    if (plan->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("refuse new privileges%s", "");
}

/*
 * In crun's order: a filter that needs privileges is set while there are some, and what another user may not do, or only
 * another user may do (on a file system of a network), is tried as both.
 */
static _Noreturn void run_command(const struct plan *plan)
{
    char path[PATH_MAX];
    bool is_there;
    enum finding program;

    if (setns(process_fd, CLONE_NEWNS | CLONE_NEWCGROUP | (plan->has_own_users ? CLONE_NEWUSER : 0)) < 0)
        fail("enter the container's namespaces%s", "");
    if (setsid() < 0) fail("start a session%s", "");
    if (plan->has_own_users && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
        fail("become root of the pod's users%s", "");
    if (plan->has_terminal) open_terminal(plan);
    is_there = enter_directory(plan->directory);
    program = find_program(plan, path);
    if (program == missing) fail_without_program(plan->command[0], program);
    if (!plan->no_new_privileges) set_filter(plan);
    if (syscall(SYS_setgroups, plan->group_count, plan->groups) < 0) fail("set groups%s", "");
    own_streams(plan);
    become_user(plan);
    if (program != found && (program = find_program(plan, path)) != found) fail_without_program(plan->command[0], program);
    if (!is_there && !enter_directory(plan->directory)) fail("chdir to `%s`", plan->directory);
    if (plan->no_new_privileges) set_filter(plan);
    umask(022);
    execve(path, plan->command, plan->variables);
    fail("exec `%s`", path);
}

/* podvm-enter ----------------------------------------------------------------------------------------------------- */

/*
 * Returns 0 in the process. A cgroup without room for one more process still gets this one (EAGAIN), as from other
 * runtimes: the limit is for forks, and the command may be there to end some.
 */
static pid_t make_process(void)
{
    struct clone_args arguments = {.flags = CLONE_PARENT | CLONE_INTO_CGROUP, .cgroup = cgroup_fd};
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);

    if (pid >= 0 || errno != EAGAIN) return pid;
    arguments = (struct clone_args){.flags = CLONE_PARENT};
    pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) {
        int processes = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (processes < 0 || write(processes, "0", 1) != 1) fail("enter the container's cgroup%s", "");
        close(processes);
    }
    return pid;
}

_Noreturn void enter_main(void)
{
    static struct plan plan;
    char text[16];
    pid_t pid;

    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || syscall(SYS_close_range, report_fd, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        fail("hide the process%s", "");
    take_plan(&plan);
    if (setns(process_fd, CLONE_NEWPID) < 0) fail("enter the container's pid namespace%s", "");
    pid = make_process();
    if (pid < 0) fail("make a process in the container's cgroup%s", "");
    if (pid == 0) run_command(&plan);
    snprintf(text, sizeof text, "%d", (int)pid);
    report('p', text, -1);
    _exit(0);
}
