import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redact } from './redact.ts';

test('replaces credentials in URLs, headers and pairs, and keeps the rest', () => {
  const cases = [
    ['https://me:hunter2@mirror.example/debian', 'https://REDACTED@mirror.example/debian'],
    ['Authorization: Bearer abcdefgh.ijkl', 'Authorization: Bearer REDACTED'],
    ['err="password=hunter2" pod=web', 'err="password=REDACTED" pod=web'],
    ['{"registryToken": "a b c", "name": "x"}', '{"registryToken": "REDACTED", "name": "x"}'],
    ['DB_PASSWORD=hunter2', 'DB_PASSWORD=REDACTED'],
    ['the pod kube-system/token-refresher runs', 'the pod kube-system/token-refresher runs'],
    ['2026-01-01T00:00:00Z info serving address=127.0.0.1', '2026-01-01T00:00:00Z info serving address=127.0.0.1'],
  ] as const;
  for (const [text, expected] of cases) assert.equal(redact(text), expected);
});

test('is fast on hostile text', () => {
  const start = performance.now();
  for (const text of ['a'.repeat(500_000), 'x://'.repeat(100_000), 'token'.repeat(100_000), 'secret '.repeat(50_000)])
    redact(text);
  assert.ok(performance.now() - start < 5000);
});
