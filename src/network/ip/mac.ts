/** A random Ethernet address: locally administered, unicast. */
export function randomMac(): string {
  const octets = crypto.getRandomValues(new Uint8Array(6));
  octets[0] = ((octets[0] ?? 0) & 0xfc) | 0x02;
  return Array.from(octets, (octet) => octet.toString(16).padStart(2, '0')).join(':');
}
