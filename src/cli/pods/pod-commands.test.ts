import assert from 'node:assert/strict';
import { test } from 'node:test';
import { timeOf } from './pod-commands.ts';

test('logs --since takes a duration ago or a time', () => {
  const now = Date.UTC(2026, 0, 31, 12);
  assert.equal(timeOf('since', '90s', now), '2026-01-31T11:58:30.000Z');
  assert.equal(timeOf('since', '1d1h30m', now), '2026-01-30T10:30:00.000Z');
  assert.equal(timeOf('since', '2026-01-31T13:00:00+02:00', now), '2026-01-31T11:00:00.000Z');
  assert.equal(timeOf('until', '2026-01-31', now), '2026-01-31T00:00:00.000Z');
  for (const wrong of ['', '5', '5 m', 'yesterday', '1', '99999999d', '2026-13-01'])
    assert.throws(() => timeOf('since', wrong, now), { kind: 'invalid', fix: /--since 1h30m/ });
});
