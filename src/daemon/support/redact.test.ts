import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redact } from './redact.ts';
import { measureWork } from '../../../test/busy-time.ts';

test('replaces credentials in URLs, headers and pairs, and keeps the rest', () => {
  const cases = [
    ['https://me:hunter2@mirror.example/debian', 'https://REDACTED@mirror.example/debian'],
    ['Authorization: Bearer abcdefgh.ijkl', 'Authorization: Bearer REDACTED'],
    ['err="password=hunter2" pod=web', 'err="password=REDACTED" pod=web'],
    ['{"registryToken": "a b c", "name": "x"}', '{"registryToken": "REDACTED", "name": "x"}'],
    ['https://me:hun@ter2@mirror.example/debian', 'https://REDACTED@mirror.example/debian'],
    [
      'Get "https://blobs.example/v2/x?X-Amz-Signature=abc&X-Amz-Date=1": EOF',
      'Get "https://blobs.example/v2/x?REDACTED": EOF',
    ],
    [
      String.raw`err="{\"password\":\"hunter2\",\"name\":\"x\"}" pod=web`,
      String.raw`err="{\"password\":"REDACTED",\"name\":\"x\"}" pod=web`,
    ],
    [String.raw`{"token": "hun\"ter2", "name": "x"}`, '{"token": "REDACTED", "name": "x"}'],
    ['{"auths": {"r.example": {"auth": "bWU6aHVudGVyMg=="}}}', '{"auths": {"r.example": {"auth": "REDACTED"}}}'],
    ['password="hunter2 and more', 'password="REDACTED"'],
    ["secret='hunter 2' pod=web", 'secret="REDACTED" pod=web'],
    ['password=hun,ter2;x', 'password=REDACTED'],
    ['DB_PASSWORD=hunter2', 'DB_PASSWORD=REDACTED'],
    ['the pod kube-system/token-refresher runs', 'the pod kube-system/token-refresher runs'],
    ['2026-01-01T00:00:00Z info serving address=127.0.0.1', '2026-01-01T00:00:00Z info serving address=127.0.0.1'],
  ] as const;
  for (const [text, expected] of cases) assert.equal(redact(text), expected);
});

test('is fast on hostile text', () => {
  const workMs = measureWork();
  for (const text of [
    'a'.repeat(500_000),
    'http://'.repeat(70_000),
    'token\\'.repeat(80_000),
    'x://'.repeat(100_000),
    'token'.repeat(100_000),
    'secret '.repeat(50_000),
  ])
    redact(text);
  assert.ok(workMs() < 5000);
});
