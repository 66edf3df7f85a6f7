/*
 * `podvm-enter`: runs further processes in containers, as `crun exec` does. A runtime that is started for each would parse
 * the container's configuration, and fork twice more; starting any program takes as long as all that this one does.
 *
 * The program waits for requests of the agent. It makes each process as a child of the agent, in the container's cgroup
 * and pid namespace, and reports its pid. Containers cannot see the program. They see the process, which shares no memory
 * with the agent and, until it executes the command, can only be traced with CAP_SYS_PTRACE (PR_SET_DUMPABLE), as with
 * other runtimes.
 */
#define _GNU_SOURCE
#include "enter.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fd_count;

/* The process ----------------------------------------------------------------------------------------------------- */

static void open_terminal(const struct entry_plan *plan)
{
    char path[64];
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

    if (master < 0) entry_fail("open `%s`", "/dev/ptmx");
    if (unlockpt(master) < 0 || ptsname_r(master, path, sizeof path) != 0) entry_fail("unlock `%s`", "/dev/ptmx");
    if (plan->size.ws_col && plan->size.ws_row && ioctl(master, TIOCSWINSZ, &plan->size) < 0) entry_fail("set the size of `%s`", path);
    slave = open(path, O_RDWR | O_CLOEXEC);
    if (slave < 0) entry_fail("open `%s`", path);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0) entry_fail("use `%s`", path);
    if (ioctl(0, TIOCSCTTY, 0) < 0) entry_fail("control `%s`", path);
    if (plan->uid && chown(path, plan->uid, (gid_t)-1) < 0) entry_fail("chown `%s`", path);
    entry_report('t', "", master);
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

/* Looks for a program without a slash in its name in the PATH of the process; `path` is the last one tried. */
static enum finding search(const struct entry_plan *plan, const char *name, char path[PATH_MAX])
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

static enum finding find_program(const struct entry_plan *plan, char path[PATH_MAX])
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

/* Fails with crun's message, by which the host recognizes a command that cannot run (exec-refusal.ts). */
static _Noreturn void fail_without_program(const char *name, enum finding finding)
{
    bool is_searched = !strchr(name, '/');

    if (finding == missing) entry_fail(is_searched ? "executable file `%s` not found in $PATH" : "executable file `%s` not found", name);
    if (finding == unreadable) entry_fail("cannot open `%s`", name);
    errno = EPERM;
    entry_fail(finding == not_executable ? "the path `%s` exists but it is not executable" : "the path `%s` is not a regular file", name);
}

static void set_filter(const struct entry_plan *plan)
{
    static struct sock_filter instructions[BPF_MAXINSNS];
    struct sock_fprog filter = {.filter = instructions};
    ssize_t size;

    if (!plan->has_filter) return;
    size = RETRY(read(filter_fd, instructions, sizeof instructions));
    filter.len = (unsigned short)(size > 0 ? (size_t)size / sizeof instructions[0] : 0);
    if (size <= 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, plan->filter_flags, &filter) < 0) entry_fail("set the seccomp filter%s", "");
}

/*
 * Gives the standard streams to the user, who can then open /dev/stdout. EINVAL: the pod's users do not include this
 * one.
 */
static void own_streams(const struct entry_plan *plan)
{
    for (int fd = 0; fd < 3; fd++)
        if (!isatty(fd) && fchown(fd, plan->uid, plan->gid) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
            entry_fail("change the owner of the standard streams%s", "");
}

static void become_user(const struct entry_plan *plan)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    for (int bit = 0; bit < 64; bit++)
        if (!(plan->capabilities >> bit & 1) && prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0) {
            if (errno != EINVAL) entry_fail("drop a capability%s", "");
            break; /* the kernel has no more */
        }
    for (int half = 0; half < 2; half++) {
        sets[half].effective = sets[half].permitted = (uint32_t)(plan->capabilities >> (32 * half));
        sets[half].inheritable = (uint32_t)(plan->ambient >> (32 * half));
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) entry_fail("keep capabilities%s", "");
    if (syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0) entry_fail("change the group%s", "");
    if (syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0) entry_fail("change the user%s", "");
    if (syscall(SYS_capset, &header, sets) < 0) entry_fail("set capabilities%s", "");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int bit = 0; bit < 64; bit++)
        if (plan->ambient >> bit & 1) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0);
    if (plan->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) entry_fail("refuse new privileges%s", "");
}

/*
 * Works in crun's order. A filter that needs privileges is set while there are some. Steps that only root, or only the
 * other user, may do (as on a network file system) are tried as both.
 */
static _Noreturn void run_command(const struct entry_plan *plan)
{
    char path[PATH_MAX];
    bool is_there;
    enum finding program;

    int namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

    if (setns(process_fd, namespaces | (plan->has_own_users ? CLONE_NEWUSER : 0)) < 0)
        entry_fail("enter the container's namespaces%s", "");
    if (setsid() < 0) entry_fail("start a session%s", "");
    if (plan->has_own_users && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
        entry_fail("become root of the pod's users%s", "");
    if (plan->has_terminal) open_terminal(plan);
    is_there = enter_directory(plan->directory);
    program = find_program(plan, path);
    if (program == missing) fail_without_program(plan->command[0], program);
    if (!plan->no_new_privileges) set_filter(plan);
    if (syscall(SYS_setgroups, plan->group_count, plan->groups) < 0) entry_fail("set groups%s", "");
    own_streams(plan);
    become_user(plan);
    if (program != found && (program = find_program(plan, path)) != found) fail_without_program(plan->command[0], program);
    if (!is_there && !enter_directory(plan->directory)) entry_fail("chdir to `%s`", plan->directory);
    if (plan->no_new_privileges) set_filter(plan);
    umask(022);
    execve(path, plan->command, plan->variables);
    entry_fail("exec `%s`", path);
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
        if (processes < 0 || write(processes, "0", 1) != 1) entry_fail("enter the container's cgroup%s", "");
        close(processes);
    }
    return pid;
}

/* False when the agent has closed its end. */
static bool take_request(int requests)
{
    char byte;
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof entry_fds)];
    } control;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    struct cmsghdr *header;

    fd_count = 0;
    if (RETRY(recvmsg(requests, &message, MSG_CMSG_CLOEXEC)) <= 0) return false;
    header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS) {
        fd_count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof entry_fds[0]);
        memcpy(entry_fds, CMSG_DATA(header), (size_t)fd_count * sizeof entry_fds[0]);
    }
    return true;
}

static _Noreturn void become_process(void)
{
    static struct entry_plan plan;

    /* Descriptors of requests are above the standard streams, which this program has. */
    for (int fd = 0; fd < stream_count; fd++)
        if (dup2(entry_fds[fd], fd) < 0) entry_fail("use the standard streams%s", "");
    take_entry_plan(&plan);
    run_command(&plan);
}

static void serve_request(void)
{
    char text[16];
    pid_t pid;

    if (setns(process_fd, CLONE_NEWPID) < 0) {
        entry_complain("enter the container's pid namespace%s", "");
        return;
    }
    pid = make_process();
    if (pid == 0) become_process();
    if (pid < 0) {
        entry_complain("make a process in the container's cgroup%s", "");
        return;
    }
    snprintf(text, sizeof text, "%d", (int)pid);
    entry_report('p', text, -1);
}

/* Requests come on descriptor 0. */
_Noreturn void enter_main(void)
{
    int requests = fcntl(0, F_DUPFD_CLOEXEC, stream_count), own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (requests < 0 || own < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) _exit(1);
    while (take_request(requests)) {
        if (fd_count >= least_fds) serve_request();
        for (int at = 0; at < fd_count; at++) close(entry_fds[at]);
        if (setns(own, CLONE_NEWPID) < 0) _exit(1);
    }
    _exit(0);
}
