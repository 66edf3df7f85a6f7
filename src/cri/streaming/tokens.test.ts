import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '#host/clock.ts';
import { maxWaitingTokens, type StreamRequest, tokenBytes, tokenLifeMs, Tokens } from './tokens.ts';

const request: StreamRequest = {
  kind: 'portforward',
  target: { dial: () => Promise.reject(new Error('nobody dials here')) },
};

function clockAt(start: number): Clock & { passed(ms: number): void } {
  let now = start;
  return { now: () => now, after: () => () => {}, passed: (ms) => void (now += ms) };
}

test('look() knows no token that was not issued, redeemed before, or is a minute old', () => {
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

test('issue() refuses when too many wait, and issues again when they are too old', () => {
  const clock = clockAt(0);
  const tokens = new Tokens(clock);
  for (let count = 0; count < maxWaitingTokens; count += 1) tokens.issue(request);
  assert.throws(() => tokens.issue(request), { kind: 'exhausted' });
  clock.passed(tokenLifeMs);
  tokens.issue(request);
});

test('issue() never names two requests alike, and in words that a URL carries as they are', () => {
  const tokens = new Tokens(clockAt(0));
  const issued = Array.from({ length: 500 }, () => tokens.issue(request));
  assert.equal(new Set(issued).size, issued.length);
  for (const token of issued) {
    assert.match(token, /^[A-Za-z0-9_-]+$/);
    assert.equal(Buffer.from(token, 'base64url').length, tokenBytes);
  }
});
