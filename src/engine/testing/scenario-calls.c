/* Calls that only the scenarios need: the other ends of the agent's connections. */
#define _GNU_SOURCE
#include "../guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static CALL(connect_unix)
{
    CALL_START;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = take_text(ctx, argv[0]);

    if (!path) return JS_EXCEPTION;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    JS_FreeCString(ctx, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0) return JS_NewInt32(ctx, fd);
    JSValue thrown = throw_errno(ctx, errno, "connect to a socket", NULL);
    if (fd >= 0) close(fd);
    return thrown;
}

static CALL(open_pty)
{
    CALL_START;
    int unlock = 0, slave = -1, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    if (master >= 0 && ioctl(master, TIOCSPTLCK, &unlock) == 0)
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    JSValue pair = slave < 0 ? throw_errno(ctx, errno, "open a pseudo-terminal", NULL) : JS_NewObject(ctx);
    if (!JS_IsException(pair) && give_int(ctx, pair, "master", master) && give_int(ctx, pair, "slave", slave)) return pair;
    if (master >= 0) close(master);
    if (slave >= 0) close(slave);
    JS_FreeValue(ctx, pair);
    return JS_EXCEPTION;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("connectUnix", 1, connect_unix),
    JS_CFUNC_DEF("openPty", 0, open_pty),
};
const struct call_table scenario_calls = {calls, COUNT(calls)};
