import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { addressOf, sctpSocketsAt } from './port-holder.ts';
import { clashingRule, parsePortRules } from './port-rules.ts';

/** Output of iptables 1.8.9, for Debian's portmap 1.1.1 and for a newer one that marks. */
const listing = `-P PREROUTING ACCEPT
-N CNI-DN-0a1b2c3d4e5f60718293a
-N CNI-DN-ffffffffffffffffffff0
-N CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT ! -d 127.0.0.0/8 -p tcp -m comment --comment "dnat name: \\"podvm\\" id: \\"abc-1\\"" -m multiport --dports 8080,8081 -j CNI-DN-0a1b2c3d4e5f60718293a
-A CNI-HOSTPORT-DNAT -p sctp -m comment --comment "dnat name: \\"net\\" id: \\"def-2\\"" -m multiport --dports 9000 -j CNI-DN-ffffffffffffffffffff0
-A CNI-DN-0a1b2c3d4e5f60718293a -s 10.86.0.0/20 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-0a1b2c3d4e5f60718293a -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.86.0.2:80
-A CNI-DN-0a1b2c3d4e5f60718293a -d 192.0.2.7/32 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.86.0.2:81
-A CNI-DN-ffffffffffffffffffff0 -p sctp -m sctp --dport 9000 -j DNAT --to-destination 10.86.0.3:9000
-A CNI-DN-nobodys0000000000000 -p tcp -m tcp --dport 7000 -j DNAT --to-destination 10.86.0.4:70
`;

describe('parsePortRules()', () => {
  test('finds rules that lead to a pod, with its network and id, and ignores unreachable ones', () => {
    const podvm = { network: 'podvm', containerId: 'abc-1' };
    assert.deepEqual(parsePortRules(listing), [
      { protocol: 'TCP', port: 8080, address: undefined, ...podvm },
      { protocol: 'TCP', port: 8081, address: '192.0.2.7', ...podvm },
      { protocol: 'SCTP', port: 9000, address: undefined, network: 'net', containerId: 'def-2' },
    ]);
    assert.deepEqual(parsePortRules(''), []);
  });
});

describe('clashingRule()', () => {
  const rules = parsePortRules(listing);
  const clash = (protocol: 'TCP' | 'UDP' | 'SCTP', hostPort: number, hostIP?: string, id = 'new') =>
    clashingRule([{ protocol, hostPort, containerPort: 1, ...(hostIP === undefined ? {} : { hostIP }) }], rules, id)
      ?.rule;

  test('finds the rule that would match the packets', () => {
    assert.equal(clash('TCP', 8080)?.containerId, 'abc-1');
    assert.equal(clash('TCP', 8080, '127.0.0.1')?.containerId, 'abc-1');
    assert.equal(clash('TCP', 8081)?.containerId, 'abc-1');
    assert.equal(clash('SCTP', 9000, '0.0.0.0')?.containerId, 'def-2');
  });

  test("finds none of another protocol, port or address, nor the sandbox's own", () => {
    assert.equal(clash('UDP', 8080), undefined);
    assert.equal(clash('TCP', 8082), undefined);
    assert.equal(clash('TCP', 8081, '192.0.2.8'), undefined);
    assert.equal(clash('TCP', 8080, undefined, 'abc-1'), undefined);
  });
});

test('addressOf() reads addresses of /proc/net', () => {
  assert.equal(addressOf('0100007F'), '127.0.0.1');
  assert.equal(addressOf('00000000'), '0.0.0.0');
  assert.equal(addressOf('00000000000000000000000000000000'), '::');
  assert.equal(addressOf('00000000000000000000000001000000'), '::1');
  assert.equal(addressOf('B80D01200000000067452301EFCDAB89'), '2001:db8::123:4567:89ab:cdef');
});

test('sctpSocketsAt() finds sockets by port and address', () => {
  const list = ` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8 ffff9 2   10  28   9000      0 1234 127.0.0.1 10.0.0.1
ffffa ffffb 2   10  29   9001      0 1235 0.0.0.0
`;
  assert.deepEqual(sctpSocketsAt(list, '0.0.0.0', 9000), [{ address: '127.0.0.1', inode: '1234' }]);
  assert.deepEqual(sctpSocketsAt(list, '10.0.0.1', 9000), [{ address: '10.0.0.1', inode: '1234' }]);
  assert.deepEqual(sctpSocketsAt(list, '10.0.0.2', 9000), []);
  assert.deepEqual(sctpSocketsAt(list, '10.0.0.2', 9001), [{ address: '0.0.0.0', inode: '1235' }]);
  assert.deepEqual(sctpSocketsAt('', '0.0.0.0', 9000), []);
});
