/*
 * Processes of a volume that is shared with the host: this program under other names. They wait for the host, whose
 * disk or network may hang; the agent itself must not wait for it.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The port and /dev/fuse. A message has at most 128 KiB of data (limits.ts) and less than a page of other bytes. */
enum { port = 0, device = 1, max_message = (128 << 10) + 4096 };
/* Bytes of requests that wait for the next one, and the time in which that must come. */
enum { max_waiting = 4096, wait_ms = 2 };

static bool write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, bytes, length);
        if (put <= 0) return false;
        bytes += put;
        length -= (size_t)put;
    }
    return true;
}

/* The device refuses the reply to an interrupted request, and all replies once it is unmounted. */
static bool is_unmounted(void)
{
    struct pollfd state = {.fd = device};

    return poll(&state, 1, 0) != 0;
}

/*
 * Whether no caller waits for the answer: a file's last close, and inodes that the kernel forgets. A program that makes
 * a file after the other then notifies the host three times for each instead of four times.
 */
static bool may_wait(const uint8_t *request, size_t length)
{
    struct fuse_in_header header;

    if (length < sizeof header) return false;
    memcpy(&header, request, sizeof header);
    return header.opcode == FUSE_RELEASE || header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET;
}

static bool comes_soon(void)
{
    struct pollfd state = {.fd = device, .events = POLLIN};

    return poll(&state, 1, wait_ms) > 0;
}

/*
 * Passes requests, which the device gives one at a time. The thread is not one of the C library, which would cost 16
 * KB. It shares errno with the other thread, so neither reads it.
 */
static int pass_requests(void *unused)
{
    static uint8_t messages[max_waiting + max_message];
    size_t waiting = 0;

    UNUSED(unused);
    for (;;) {
        ssize_t length = read(device, messages + waiting, max_message);
        if (length <= 0 && is_unmounted()) _exit(0);
        if (length > 0) {
            uint8_t *request = messages + waiting;
            waiting += (size_t)length;
            if (waiting <= max_waiting && may_wait(request, (size_t)length) && comes_soon()) continue;
        }
        if (!write_all(port, messages, waiting)) _exit(0);
        waiting = 0;
    }
}

/*
 * Passes replies, which the device takes one at a time; the port gives at most a page. Returns once the host is gone.
 * No other thread may poll the port: the kernel takes the next buffer from the device for a poll, and then does not wake
 * a thread that sleeps in a read.
 */
static void pass_replies(void)
{
    static uint8_t bytes[2 * max_message];
    struct fuse_out_header header;
    size_t start = 0, end = 0;

    for (;;) {
        ssize_t got = read(port, bytes + end, sizeof bytes - end);
        if (got <= 0) return;
        end += (size_t)got;
        while (end - start >= sizeof header) {
            memcpy(&header, bytes + start, sizeof header);
            if (header.len < sizeof header || header.len > max_message) return;
            if (end - start < header.len) break;
            if (write(device, bytes + start, header.len) < 0 && is_unmounted()) return;
            start += header.len;
        }
        memmove(bytes, bytes + start, end - start);
        end -= start;
        start = 0;
    }
}

/*
 * Carries messages between descriptors 0 (a virtio-serial port) and 1 (/dev/fuse). Ends when either side is gone; the
 * kernel then fails all calls that wait for the volume.
 */
int pump_main(void)
{
    static uint8_t stack[64 << 10] __attribute__((aligned(16)));

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpriority(PRIO_PROCESS, 0, -20); /* callers wait for this process: creating files becomes 5 to 20 % faster */
    signal(SIGPIPE, SIG_IGN);
    fcntl(port, F_SETFL, fcntl(port, F_GETFL) & ~O_NONBLOCK);
    int as_thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    if (clone(pass_requests, stack + sizeof stack, as_thread, NULL) < 0) return 1;
    pass_replies();
    return 0;
}

/* `podvm-look TARGET`: exits with 0 once the host has answered for the root of the volume, else with the errno. */
int look_main(int argc, char **argv)
{
    struct stat found;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 2) return EINVAL;
    return stat(argv[1], &found) < 0 ? errno : 0;
}

/*
 * `podvm-unmount TARGET`: unmounts once the host has all data, and exits with the errno. Unmounting drops data that is
 * still on its way (pages that were mapped writable), so it first waits for a flush of the root, which comes after
 * them.
 */
int unmount_main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 2) return EINVAL;
    int root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root >= 0) {
        syncfs(root);
        fsync(root);
        close(root);
    }
    return umount2(argv[1], UMOUNT_NOFOLLOW) < 0 ? errno : 0;
}
