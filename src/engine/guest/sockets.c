/* Sockets and terminal sizes. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static JSValue give_socket(JSContext *ctx, int fd, bool ok, const char *verb, const char *what)
{
    if (ok) return JS_NewInt32(ctx, fd);
    JSValue thrown = throw_errno(ctx, errno, verb, what);
    if (fd >= 0) close(fd);
    return thrown;
}

static CALL(make_socket_pair)
{
    CALL_START;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) return throw_errno(ctx, errno, "make sockets", NULL);
    JSValue pair = JS_NewArray(ctx);
    bool ok = !JS_IsException(pair);
    for (uint32_t end = 0; ok && end < 2; end++) ok = JS_SetPropertyUint32(ctx, pair, end, JS_NewInt32(ctx, fds[end])) >= 0;
    if (ok) return pair;
    JS_FreeValue(ctx, pair);
    close(fds[0]);
    close(fds[1]);
    return JS_EXCEPTION;
}

static CALL(send_descriptors)
{
    CALL_START;
    int fd, sent[max_received_fds];
    int64_t numbers[max_received_fds];
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof sent)];
    } control = {0};
    struct iovec part = {.iov_base = "", .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    int count = take_ints(ctx, argv[1], 0, max_fds - 1, numbers, max_received_fds);
    if (count < 0) return JS_EXCEPTION;
    for (int at = 0; at < count; at++) sent[at] = (int)numbers[at];
    size_t size = (size_t)count * sizeof sent[0];
    control.aligned = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(&control.aligned), sent, size);
    message.msg_controllen = CMSG_SPACE(size);
    if (RETRY(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) return throw_errno(ctx, errno, "send descriptors", NULL);
    return JS_UNDEFINED;
}

static bool unix_address(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) return errno = ENAMETOOLONG, false;
    memcpy(address->sun_path, path, strlen(path));
    return true;
}

static CALL(listen_unix)
{
    CALL_START;
    int64_t mode;
    const char *path;
    struct sockaddr_un address;

    if (!take_optional_int(ctx, argv[1], 0, 0777, 0600, &mode)) return JS_EXCEPTION;
    path = take_text(ctx, argv[0]);
    if (!path) return JS_EXCEPTION;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0 && unix_address(path, &address) && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
              chmod(path, (mode_t)mode) == 0 && listen(fd, 16) == 0;
    JSValue answer = give_socket(ctx, fd, ok, "listen on", path);
    JS_FreeCString(ctx, path);
    return answer;
}

static CALL(accept_connection)
{
    CALL_START;
    int fd, accepted;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    accepted = RETRY(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (accepted >= 0) return JS_NewInt32(ctx, accepted);
    /* ECONNABORTED: the peer has already gone. */
    if (errno == EAGAIN || errno == ECONNABORTED) return JS_NewInt32(ctx, again);
    return throw_errno(ctx, errno, "accept", NULL);
}

/* Takes at most `max_received_fds` descriptors from a message; the kernel has closed those without room. */
static int received_fds(struct msghdr *message, int *fds)
{
    int count = 0;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(0)) continue;
        size_t length = part->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
            if (count < max_received_fds) fds[count++] = fd;
            else close(fd);
        }
    }
    return count;
}

static JSValue give_received(JSContext *ctx, ssize_t bytes, const int *fds, int count)
{
    JSValue answer = JS_NewObject(ctx), array = JS_NewArray(ctx);
    bool ok = !JS_IsException(answer) && !JS_IsException(array) && give_int(ctx, answer, "bytes", bytes);

    for (int i = 0; ok && i < count; i++) ok = JS_SetPropertyUint32(ctx, array, (uint32_t)i, JS_NewInt32(ctx, fds[i])) >= 0;
    if (ok) ok = JS_DefinePropertyValueStr(ctx, answer, "fds", JS_DupValue(ctx, array), JS_PROP_C_W_E) >= 0;
    JS_FreeValue(ctx, array);
    if (ok) return answer;
    for (int i = 0; i < count; i++) close(fds[i]);
    JS_FreeValue(ctx, answer);
    return JS_EXCEPTION;
}

static CALL(receive)
{
    CALL_START;
    int fd, fds[max_received_fds], count = 0;
    uint8_t *bytes;
    size_t length;
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int) * max_received_fds)];
    } control;

    if (!take_fd(ctx, argv[0], &fd) || !take_bytes(ctx, argv[1], &bytes, &length)) return JS_EXCEPTION;
    struct iovec part = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    ssize_t got = RETRY(recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
    if (got < 0 && errno != EAGAIN) return throw_errno(ctx, errno, "receive", NULL);
    if (got >= 0) count = received_fds(&message, fds);
    return give_received(ctx, got < 0 ? again : got, fds, count);
}

static bool ip_address(const char *text, uint16_t port, struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in *four = (struct sockaddr_in *)address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;

    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        *length = sizeof *four;
        return true;
    }
    if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1) return errno = EINVAL, false;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    *length = sizeof *six;
    return true;
}

static JSValue connect_ip(JSContext *ctx, JSValueConst *argv, int type)
{
    int64_t port;
    const char *text;
    struct sockaddr_storage address;
    socklen_t length = 0;
    int fd = -1;

    if (!take_int(ctx, argv[1], 1, 65535, &port)) return JS_EXCEPTION;
    text = take_text(ctx, argv[0]);
    if (!text) return JS_EXCEPTION;
    bool ok = ip_address(text, (uint16_t)port, &address, &length);
    if (ok) {
        fd = socket(address.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        ok = fd >= 0 && (connect(fd, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS || errno == EINTR);
    }
    JSValue answer = give_socket(ctx, fd, ok, "connect to", text);
    JS_FreeCString(ctx, text);
    return answer;
}

static CALL(connect_tcp)
{
    CALL_START;
    return connect_ip(ctx, argv, SOCK_STREAM);
}

static CALL(connect_udp)
{
    CALL_START;
    return connect_ip(ctx, argv, SOCK_DGRAM);
}

static CALL(socket_error)
{
    CALL_START;
    int fd, error = 0;
    socklen_t length = sizeof error;
    const char *name;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return throw_errno(ctx, errno, "ask a socket", NULL);
    if (error == 0) return JS_UNDEFINED;
    name = strerrorname_np(error);
    return JS_NewString(ctx, name ? name : "EUNKNOWN");
}

static CALL(shutdown_write)
{
    CALL_START;
    int fd;

    if (!take_fd(ctx, argv[0], &fd)) return JS_EXCEPTION;
    if (shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN) return throw_errno(ctx, errno, "shut a socket down", NULL);
    return JS_UNDEFINED;
}

static CALL(open_netlink)
{
    CALL_START;
    int64_t groups;
    const char *family;

    if (!take_int(ctx, argv[1], 0, UINT32_MAX, &groups)) return JS_EXCEPTION;
    family = take_text(ctx, argv[0]);
    if (!family) return JS_EXCEPTION;
    int protocol = strcmp(family, "route") == 0 ? NETLINK_ROUTE : NETLINK_KOBJECT_UEVENT;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = (uint32_t)groups};
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    JSValue answer = give_socket(ctx, fd, ok, "open netlink", family);
    JS_FreeCString(ctx, family);
    return answer;
}

static CALL(interface_index)
{
    CALL_START;
    const char *name = take_text(ctx, argv[0]);
    unsigned index;

    if (!name) return JS_EXCEPTION;
    index = if_nametoindex(name);
    JSValue answer = index ? JS_NewInt64(ctx, index) : throw_errno(ctx, errno, "find interface", name);
    JS_FreeCString(ctx, name);
    return answer;
}

static CALL(set_window_size)
{
    CALL_START;
    int fd;
    int64_t columns, rows;

    if (!take_fd(ctx, argv[0], &fd) || !take_int(ctx, argv[1], 0, UINT16_MAX, &columns) || !take_int(ctx, argv[2], 0, UINT16_MAX, &rows))
        return JS_EXCEPTION;
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    return ioctl(fd, TIOCSWINSZ, &size) < 0 ? throw_errno(ctx, errno, "set a window size", NULL) : JS_UNDEFINED;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("listenUnix", 2, listen_unix),
    JS_CFUNC_DEF("accept", 1, accept_connection),
    JS_CFUNC_DEF("socketPair", 0, make_socket_pair),
    JS_CFUNC_DEF("sendDescriptors", 2, send_descriptors),
    JS_CFUNC_DEF("receive", 2, receive),
    JS_CFUNC_DEF("connectTcp", 2, connect_tcp),
    JS_CFUNC_DEF("connectUdp", 2, connect_udp),
    JS_CFUNC_DEF("socketError", 1, socket_error),
    JS_CFUNC_DEF("shutdownWrite", 1, shutdown_write),
    JS_CFUNC_DEF("openNetlink", 2, open_netlink),
    JS_CFUNC_DEF("interfaceIndex", 1, interface_index),
    JS_CFUNC_DEF("setWindowSize", 3, set_window_size),
};
const struct call_table socket_calls = {calls, COUNT(calls)};
