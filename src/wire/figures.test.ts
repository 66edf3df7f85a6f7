import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { metrics } from './figures.ts';
import { limits } from './limits.ts';

const numbers = Object.fromEntries(
  Object.entries(metrics.entries)
    .filter(([, entry]) => v.is(entry, 1))
    .map(([key]) => [key, 1]),
);
const device = {
  major: 8,
  minor: 0,
  name: 'sda',
  readBytes: 1,
  reads: 1,
  writtenBytes: 1,
  writes: 1,
  discardedBytes: 0,
};
const counters = {
  rxBytes: 1,
  rxPackets: 1,
  rxErrors: 0,
  rxDropped: 0,
  txBytes: 1,
  txPackets: 1,
  txErrors: 0,
  txDropped: 0,
};
const eth0 = { name: 'eth0', ...counters };
const good = { ...numbers, devices: [device], interfaces: [eth0], ulimits: [{ name: 'max_open_files', soft: 1024 }] };

test('figures of a guest are accepted if they are numbers with plain names', () => {
  assert.ok(v.is(metrics, good));
});

test('a guest cannot have a series twice, which would make the metrics of the whole node invalid', () => {
  assert.ok(!v.is(metrics, { ...good, interfaces: [eth0, eth0] }));
  assert.ok(!v.is(metrics, { ...good, ulimits: [...good.ulimits, ...good.ulimits] }));
  assert.ok(!v.is(metrics, { ...good, devices: [device, device] }));
  assert.ok(!v.is(metrics, { ...good, devices: [device, { ...device, minor: 1 }] }), 'two of a name');
});

test('a guest cannot have labels of its own, invalid numbers or unlimited lists', () => {
  for (const name of ['', 'a b', 'eth0"} 1\n', 'x'.repeat(16), 7])
    assert.ok(!v.is(metrics, { ...good, interfaces: [{ ...eth0, name }] }), String(name));
  for (const name of ['', '../sda', 'sd a'])
    assert.ok(!v.is(metrics, { ...good, devices: [{ ...device, name }] }), name);
  assert.ok(!v.is(metrics, { ...good, ulimits: [{ name: 'max_made_up', soft: 1 }] }));
  for (const value of [-1, 0.5, Number.NaN, 2 ** 53, '1', null])
    assert.ok(!v.is(metrics, { ...good, rssBytes: value }));
  const many = Array.from({ length: limits.maxInterfaces + 1 }, (_, at) => ({ ...eth0, name: `eth${at}` }));
  assert.ok(v.is(metrics, { ...good, interfaces: many.slice(1) }));
  assert.ok(!v.is(metrics, { ...good, interfaces: many }));
});
