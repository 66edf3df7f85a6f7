/* SCTP without a library of it: for sctp.test.ts, run inside machines. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerrorname_np(errno));
    return 1;
}

static int send_all(int fd, const char *bytes, size_t count)
{
    for (ssize_t sent; count > 0; bytes += sent, count -= (size_t)sent)
        if ((sent = send(fd, bytes, count, MSG_NOSIGNAL)) < 0) return -1;
    return 0;
}

/* A socket for the address, which is left in `found`. */
static int socket_for(const char *host, const char *port, struct addrinfo **found)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};

    if (getaddrinfo(host, port, &hints, found) != 0) exit(2);
    return socket((*found)->ai_family, SOCK_STREAM, IPPROTO_SCTP);
}

/* Echoes all bytes, to one client after another. Binds only this address: peers learn of each one of a socket. */
static int serve(const char *host, const char *port)
{
    static char buffer[1 << 16];
    struct addrinfo *own;
    int fd = socket_for(host, port, &own);

    if (fd < 0) return fail("socket");
    if (bind(fd, own->ai_addr, own->ai_addrlen) < 0) return fail("bind");
    if (listen(fd, 8) < 0) return fail("listen");
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        int peer = accept(fd, NULL, NULL);
        ssize_t got;

        if (peer < 0) return fail("accept");
        while ((got = recv(peer, buffer, sizeof buffer, 0)) > 0)
            if (send_all(peer, buffer, (size_t)got) < 0) break;
        close(peer);
    }
}

/* Sends that many bytes, in messages larger than a packet, and compares the echo. */
static int ask(const char *host, const char *port, size_t count)
{
    struct timeval patience = {.tv_sec = 20};
    struct addrinfo *found;
    int fd = socket_for(host, port, &found);
    char *sent, *back;
    size_t done;

    if (fd < 0) return fail("socket");
    if ((sent = malloc(count)) == NULL || (back = malloc(count)) == NULL) return 2;
    for (done = 0; done < count; done++) sent[done] = (char)(done * 31 + done / 251);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, found->ai_addr, found->ai_addrlen) < 0) return fail("connect");
    for (done = 0; done < count;) {
        size_t part = count - done < 16384 ? count - done : 16384;
        size_t end = done + part;

        if (send_all(fd, sent + done, part) < 0) return fail("send");
        while (done < end) {
            ssize_t got = recv(fd, back + done, end - done, 0);
            if (got <= 0) return fail("recv");
            done += (size_t)got;
        }
    }
    puts(memcmp(sent, back, count) == 0 ? "echoed" : "garbled");
    return close(fd);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "serve") == 0) return serve(argv[2], argv[3]);
    if (argc == 5 && strcmp(argv[1], "ask") == 0) return ask(argv[2], argv[3], (size_t)atol(argv[4]));
    return 2;
}
