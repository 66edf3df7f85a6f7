import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rulesOf } from './service-rules.ts';

const bridge = { bridge: 'podvm0', gateway: '10.86.0.1' };

test('rulesOf() leads a port to its pods, and refuses what has none', () => {
  const port = { protocol: 'TCP', port: 80 } as const;
  const [one, two] = [
    { address: '10.86.0.2', port: 8080 },
    { address: '10.86.0.3', port: 8081 },
  ];
  const linesOf = (targets: readonly { readonly address: string; readonly port: number }[]) =>
    rulesOf(bridge, [{ address: '10.196.1.1', ports: [{ ...port, targets }] }])
      .split('\n')
      .filter((line) => line.includes('10.196.1.1'))
      .map((line) => line.trim());
  const set = 'set addresses { type ipv4_addr; elements = { 10.196.0.10, 10.196.1.1 } }';
  assert.deepEqual(linesOf([]), [set]);
  assert.deepEqual(linesOf([one]), [set, 'ip daddr 10.196.1.1 tcp dport 80 dnat ip to 10.86.0.2:8080']);
  assert.deepEqual(linesOf([one, two]), [
    set,
    'ip daddr 10.196.1.1 tcp dport 80 dnat ip addr . port to numgen random mod 2 map { 0 : 10.86.0.2 . 8080, 1 : 10.86.0.3 . 8081 }',
  ]);
});
