import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { rulesOf, setRules } from './service-rules.ts';

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

test('setRules() gives nft more rules than an argument can have', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-rules-'));
  try {
    const rules = `no rule, so that nft changes nothing\n${'# a long line\n'.repeat(20_000)}`;
    const { signal } = new AbortController();
    await assert.rejects(setRules({ bridge: 'none', directory }, rules, signal), (error: Error) => {
      assert.doesNotMatch(`${error.message} ${String(error.cause)}`, /E2BIG|too long/);
      return true;
    });
    assert.ok((await readFile(join(directory, 'rules.nft'), 'utf8')).includes(rules));
  } finally {
    await rm(directory, { recursive: true });
  }
});
