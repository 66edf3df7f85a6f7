import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '#host/clock.ts';
import { maxWaitingTokens, type StreamRequest, tokenBytes, tokenLifeMs, Tokens } from './tokens.ts';

const request: StreamRequest = {
  kind: 'portforward',
  target: { dial: () => Promise.reject(new Error('this target has no dial')) },
  ports: [],
};

function clockAt(start: number): Clock & { passed(ms: number): void } {
  let now = start;
  // The date jumps with each call.
  return {
    now: () => Math.random() * 1e12,
    monotonicMs: () => now,
    after: () => () => {},
    passed: (ms) => void (now += ms),
  };
}

test('look() rejects unknown, redeemed and expired tokens', () => {
  const clock = clockAt(5000);
  const tokens = new Tokens(clock);
  assert.equal(tokens.look('guessed'), undefined);

  const once = tokens.issue(request);
  assert.equal(tokens.look(once), request);
  tokens.redeem(once);
  assert.equal(tokens.look(once), undefined);

  const old = tokens.issue(request);
  clock.passed(tokenLifeMs - 1);
  assert.equal(tokens.look(old), request);
  clock.passed(1);
  assert.equal(tokens.look(old), undefined);
});

test('issue() refuses when too many are unused, and works again after their expiry', () => {
  const clock = clockAt(0);
  const tokens = new Tokens(clock);
  for (let count = 0; count < maxWaitingTokens; count += 1) tokens.issue(request);
  assert.throws(() => tokens.issue(request), { kind: 'exhausted' });
  clock.passed(tokenLifeMs);
  tokens.issue(request);
});

test('issue() makes unique tokens that need no encoding in a URL', () => {
  const tokens = new Tokens(clockAt(0));
  const issued = Array.from({ length: 500 }, () => tokens.issue(request));
  assert.equal(new Set(issued).size, issued.length);
  for (const token of issued) {
    assert.match(token, /^[A-Za-z0-9_-]+$/);
    assert.equal(Buffer.from(token, 'base64url').length, tokenBytes);
  }
});
