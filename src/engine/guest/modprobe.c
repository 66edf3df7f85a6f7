/*
 * The program that the kernel starts when it lacks a module (Documentation/admin-guide/sysctl/kernel.rst, `modprobe`).
 * It sends the name to the agent, which decides, and waits for the answer: the kernel looks again when this process
 * ends.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* Longer than any module takes. An agent that waits for the kernel itself must not wait forever. */
static const struct timeval patience = {.tv_sec = 20};

/* `modprobe -q -- NAME` */
int modprobe_main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = MODPROBE_SOCKET};
    char answer = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (argc != 4 || fd < 0) return 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) return 1;
    if (write(fd, argv[3], strlen(argv[3])) < 0 || shutdown(fd, SHUT_WR) < 0) return 1;
    return RETRY(read(fd, &answer, 1)) == 1 && answer == '+' ? 0 : 1;
}
