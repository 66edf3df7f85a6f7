import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leadsOut, randomUniqueLocal } from './ipv6.ts';
import { isAccepting } from './node-facts.ts';

test('leadsOut() is false where a node has no IPv6 route out, or would lose it by forwarding', () => {
  const fixed = { dst: 'default', gateway: 'fe80::1', dev: 'eth0', protocol: 'static' };
  const advertised = { ...fixed, protocol: 'ra' };
  assert.equal(leadsOut([fixed], false), true);
  assert.equal(leadsOut([advertised], false), false);
  assert.equal(leadsOut([fixed, advertised], false), false);
  assert.equal(leadsOut([advertised], true), true);
  assert.equal(leadsOut([{ dst: 'default', gateway: '10.0.0.1', dev: 'eth0' }], true), false);
  assert.equal(leadsOut([{ ...fixed, type: 'unreachable', dev: 'lo' }], true), false);
  assert.equal(leadsOut([], true), false);
});

test('isAccepting() follows the policy', () => {
  assert.equal(isAccepting('-P FORWARD DROP\n-A FORWARD -j ACCEPT\n'), false);
  assert.equal(isAccepting('-P FORWARD ACCEPT\n'), true);
});

test('randomUniqueLocal() returns a /64 that is valid in the record of the default network', () => {
  const subnets = new Set(Array.from({ length: 1000 }, randomUniqueLocal));
  assert.ok(subnets.size > 990);
  for (const subnet of subnets) assert.match(subnet, /^fd[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}::\/64$/);
});
