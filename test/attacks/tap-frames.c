/*
 * Takes the place of a VMM: frames from standard input go to a tap, frames from the tap to standard output, each after
 * its length in two bytes, big-endian. An empty frame reports that the tap is open.
 *
 *   tap-frames NETNS DEVICE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { frame_bytes = 65535 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int open_tap(const char *netns, const char *name) {
  int space = open(netns, O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) < 0) fail(netns);
  int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (tap < 0) fail("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(tap, TUNSETIFF, &request) < 0) fail(name);
  return tap;
}

/* Returns false at the end of the input. */
static int read_whole(uint8_t *into, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t got = read(0, into + done, bytes - done);
    if (got <= 0) return 0;
    done += (size_t)got;
  }
  return 1;
}

static void write_whole(const uint8_t *from, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t put = write(1, from + done, bytes - done);
    if (put <= 0) fail("write");
    done += (size_t)put;
  }
}

int main(int count, char **arguments) {
  static uint8_t frame[2 + frame_bytes];
  if (count != 3) {
    fprintf(stderr, "usage: %s NETNS DEVICE\n", arguments[0]);
    return 2;
  }
  int tap = open_tap(arguments[1], arguments[2]);
  write_whole(frame, 2);
  struct pollfd ready[2] = {{.fd = 0, .events = POLLIN}, {.fd = tap, .events = POLLIN}};
  while (poll(ready, 2, -1) > 0) {
    if (ready[1].revents & POLLIN) {
      ssize_t got = read(tap, frame + 2, frame_bytes);
      if (got > 0) {
        frame[0] = (uint8_t)(got >> 8);
        frame[1] = (uint8_t)got;
        write_whole(frame, 2 + (size_t)got);
      }
    }
    if (ready[0].revents == 0) continue;
    if (!read_whole(frame, 2)) return 0;
    size_t bytes = (size_t)(frame[0] << 8 | frame[1]);
    if (!read_whole(frame + 2, bytes)) return 0;
    if (write(tap, frame + 2, bytes) < 0) continue; /* one that the kernel takes for none */
  }
  fail("poll");
}
