/*
 * The processes of a volume that is shared with the host: our own program under other names. What they do waits for the
 * host, whose disk or network may hang, and nothing that the agent itself does may.
 */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

/* More than one message (msize is 64 KiB): what waits here must never stop the other direction. */
enum { pump_bytes = 128 << 10 };

struct lane {
    int from, to;
    size_t start, end;
    uint8_t bytes[pump_bytes];
};

/* In the order of the descriptors: from the port to the socket, and back. Zero pages until they are used. */
static struct lane lanes[2];

/* Reads as long as there is something and room: a port gives a page at a time. False: the other end is gone. */
static bool fill(struct lane *lane)
{
    while (lane->end < sizeof lane->bytes) {
        ssize_t got = RETRY(read(lane->from, lane->bytes + lane->end, sizeof lane->bytes - lane->end));
        if (got < 0) return errno == EAGAIN;
        if (got == 0) return false;
        lane->end += (size_t)got;
    }
    return true;
}

static bool drain(struct lane *lane)
{
    while (lane->start < lane->end) {
        ssize_t put = RETRY(write(lane->to, lane->bytes + lane->start, lane->end - lane->start));
        if (put < 0) return errno == EAGAIN;
        lane->start += (size_t)put;
    }
    lane->start = lane->end = 0;
    return true;
}

/*
 * Carries bytes both ways between its descriptors 0 (a virtio-serial port) and 1 (a socket): the kernel's 9p client takes
 * a socket and refuses the port itself, whose driver cannot be read from inside of the kernel (EINVAL). Ends when either
 * side is gone: the kernel then answers what waits for the volume with an error.
 */
int pump_main(void)
{
    struct pollfd ends[2] = {{.fd = 0}, {.fd = 1}};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        lanes[i].from = i;
        lanes[i].to = 1 - i;
        fcntl(i, F_SETFL, fcntl(i, F_GETFL) | O_NONBLOCK);
    }
    for (;;) {
        for (int i = 0; i < 2; i++) {
            bool has_room = lanes[i].end < sizeof lanes[i].bytes, has_bytes = lanes[1 - i].start < lanes[1 - i].end;
            ends[i].events = (short)((has_room ? POLLIN : 0) | (has_bytes ? POLLOUT : 0));
        }
        if (RETRY(poll(ends, 2, -1)) < 0) return 1;
        for (int i = 0; i < 2; i++) {
            if ((ends[i].revents & POLLIN) && !fill(&lanes[i])) return 0;
            if (!drain(&lanes[i])) return 0;
            if ((ends[i].revents & (POLLHUP | POLLERR)) && !(ends[i].revents & POLLIN)) return 0;
        }
    }
}

/* `podvm-mount TARGET OPTIONS`: a 9p file system whose socket is descriptor 0. Its exit code is the errno. */
int mount_main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 3) return EINVAL;
    return mount("podvm", argv[1], "9p", MS_NODEV, argv[2]) < 0 ? errno : 0;
}

/* `podvm-unmount TARGET`: what was written is with the host after it. Its exit code is the errno. */
int unmount_main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 2) return EINVAL;
    return umount2(argv[1], UMOUNT_NOFOLLOW) < 0 ? errno : 0;
}
