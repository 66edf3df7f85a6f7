import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mostDown } from './installers-down.ts';

const begin = ['ADDED|a|node1|True|', 'ADDED|b|node2|True|'];
const replaced = (pod: string, next: string, node: string) => [
  `MODIFIED|${pod}|${node}|True|2026-01-01T00:00:00Z`,
  `DELETED|${pod}|${node}|False|2026-01-01T00:00:00Z`,
  `ADDED|${next}|||`,
  `MODIFIED|${next}|${node}|False|`,
  `MODIFIED|${next}|${node}|True|`,
];
const nodes = ['node1', 'node2'];

test('one node after the other has no installer that is ready', () => {
  const lines = [...begin, ...replaced('a', 'c', 'node1'), ...replaced('b', 'd', 'node2')];
  assert.deepEqual(mostDown(lines), { most: 1, now: 0, nodes });
  assert.deepEqual(mostDown(lines.slice(0, 5)), { most: 1, now: 1, nodes });
  assert.deepEqual(mostDown(begin), { most: 0, now: 0, nodes });
});

test('both are without one for a moment', () => {
  const [first, second] = [replaced('a', 'c', 'node1'), replaced('b', 'd', 'node2')];
  const lines = [...begin, ...first.slice(0, 2), ...second.slice(0, 1), ...first.slice(2), ...second.slice(1)];
  assert.deepEqual(mostDown(lines), { most: 2, now: 0, nodes });
});
