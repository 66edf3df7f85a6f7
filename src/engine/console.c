/* The console, which is descriptor 2. */
#define _GNU_SOURCE
#include "engine.h"

#include <poll.h>
#include <unistd.h>

void print_line(const char *text, size_t length)
{
    static const char hex[] = "0123456789abcdef";
    char line[1024];
    size_t used = 0;
    struct pollfd console = {.fd = 2, .events = POLLOUT};

    for (size_t i = 0; i < length && used < sizeof line - 5; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n' && i + 1 == length) break;
        if (c >= 0x20 && c != 0x7f) line[used++] = (char)c;
        else {
            line[used++] = '\\';
            line[used++] = 'x';
            line[used++] = hex[c >> 4];
            line[used++] = hex[c & 15];
        }
    }
    line[used++] = '\n';
    if (poll(&console, 1, 0) == 1 && (console.revents & POLLOUT) && write(2, line, used) < 0) return;
}
