import assert from 'node:assert/strict';
import { test } from 'node:test';
import { upstreamsOf } from './service-dns.ts';

test('upstreamsOf() finds the addresses that dnsmasq takes', () => {
  const text = `# nameserver 192.0.2.9
search example.com
nameserver 192.0.2.1 # of the office
nameserver\t127.0.0.53;local
  nameserver 2001:db8::1
nameserver 192.0.2.1
nameserver 192.0.2
nameserver ::::
nameserver fe80::1%eth0
nameserver`;
  assert.deepEqual(upstreamsOf(text), ['192.0.2.1', '127.0.0.53', '2001:db8::1']);
  assert.equal(upstreamsOf(Array.from({ length: 20 }, (_, at) => `nameserver 192.0.2.${at}`).join('\n')).length, 8);
});
