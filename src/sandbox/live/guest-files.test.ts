import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultGateways, hasAnsweredArp, localAddresses, parsePodResolvConf, recentPressure } from './guest-files.ts';

test('parsePodResolvConf() takes three addresses and well-formed domains', () => {
  const text = [
    'nameserver 10.96.0.10',
    ' nameserver\tfd00::a',
    'nameserver not-an-address',
    'nameserver 127.0.0.1',
    'nameserver 10.96.0.11',
    'search old.example',
    `search default.svc.cluster.local svc.cluster.local ${'a'.repeat(64)}.x a..b`,
  ].join('\n');
  assert.deepEqual(parsePodResolvConf(text), {
    nameservers: ['10.96.0.10', 'fd00::a', '127.0.0.1'],
    searches: ['default.svc.cluster.local', 'svc.cluster.local'],
  });
});

test('localAddresses() finds those of both families', () => {
  const trie = [
    'Local:',
    '  +-- 0.0.0.0/0 3 0 5',
    '     |-- 0.0.0.0',
    '        /0 universe UNICAST',
    '        |-- 10.213.0.2',
    '           /32 host LOCAL',
    '        |-- 10.213.0.255',
    '           /32 link BROADCAST',
    '        |-- 999.1.1.1',
    '           /32 host LOCAL',
  ].join('\n');
  const inet6 =
    '00000000000000000000000000000001 01 80 10 80       lo\nfd00000000000000000000000000002a 02 40 00 80     eth0\n';
  assert.deepEqual([...localAddresses(trie, inet6)], ['10.213.0.2', '::1', 'fd00::2a']);
});

test('defaultGateways() finds the gateways of default routes only', () => {
  const head = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT';
  const route = [
    head,
    'eth0\t00000000\t0100D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0',
    'eth0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0',
    'tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0',
    'eth1\t00000000\tgarbage!\t0003\t0\t0\t0\t00000000\t0\t0\t0',
  ].join('\n');
  const none = '0'.repeat(32);
  const ipv6 = [
    `${none} 00 ${none} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
    `${none} 00 ${none} 00 ${none} ffffffff 00000001 00000000 00200200       lo`,
    `fd000000000000000000000000000000 40 ${none} 00 ${none} 00000100 00000001 00000000 00000001     eth0`,
  ].join('\n');
  assert.deepEqual(defaultGateways(route, ipv6), ['10.213.0.1', 'fd00::1']);
  assert.deepEqual(defaultGateways('', ''), []);
});

test('hasAnsweredArp() reads the flag of a neighbour', () => {
  const arp = [
    'IP address       HW type     Flags       HW address            Mask     Device',
    '10.213.0.1       0x1         0x2         0a:58:0a:d5:00:01     *        eth0',
    '10.213.0.9       0x1         0x0         00:00:00:00:00:00     *        eth0',
  ].join('\n');
  assert.equal(hasAnsweredArp(arp, '10.213.0.1'), true);
  assert.equal(hasAnsweredArp(arp, '10.213.0.9'), false);
  assert.equal(hasAnsweredArp(arp, '10.213.0.3'), undefined);
});

test('recentPressure() takes a share, and no nonsense', () => {
  assert.equal(
    recentPressure('some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0 total=0\n'),
    12.5,
  );
  assert.equal(recentPressure('some avg10=900.00 avg60=0.00 avg300=0.00 total=1\n'), undefined);
  assert.equal(recentPressure(''), undefined);
});
