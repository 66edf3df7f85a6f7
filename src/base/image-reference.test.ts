import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { completeReference, formatReference, isLoopback, parseReference } from './image-reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

test('parseReference() refuses invalid references, with the reason', () => {
  for (const bad of [
    '',
    'UPPER',
    'a//b',
    'a:b:c',
    'a@b',
    `a@${digest}@${digest}`,
    'a b',
    '-a',
    'a:',
    'a'.repeat(256),
    '../a',
    'ho_st.x/a',
    'a'.repeat(64),
    digest,
  ]) {
    assert.throws(
      () => parseReference(bad),
      (error) =>
        error instanceof PodvmError && error.kind === 'invalid' && /Cannot use image reference/.test(error.message),
      bad,
    );
  }
});

test('parseReference() completes short names as Docker does', () => {
  const full = (text: string) => formatReference(parseReference(text));
  assert.equal(full('nginx'), 'docker.io/library/nginx:latest');
  assert.equal(full('bitnami/redis:7'), 'docker.io/bitnami/redis:7');
  assert.equal(full('localhost/podvm/base'), 'localhost/podvm/base:latest');
  assert.equal(full('localhost:5000/shop/db:1'), 'localhost:5000/shop/db:1');
  assert.equal(full(`r.example/a@${digest}`), `r.example/a@${digest}`);
  assert.equal(full(`r.example/a:1@${digest}`), `r.example/a@${digest}`);
  assert.equal(full('index.docker.io/nginx:1'), 'docker.io/library/nginx:1');
});

test('completeReference() contains every given part', () => {
  const complete = (text: string) => completeReference(parseReference(text));
  assert.equal(complete('nginx'), 'docker.io/library/nginx:latest');
  assert.equal(complete(`nginx@${digest}`), `docker.io/library/nginx@${digest}`);
  assert.equal(complete(`nginx:1@${digest}`), `docker.io/library/nginx:1@${digest}`);
});

test('isLoopback() recognises only registries of this machine', () => {
  assert.ok(['localhost:5000/a', '127.0.0.1:5000/a', '127.1.2.3/a'].every((text) => isLoopback(parseReference(text))));
  assert.ok(
    !['a', 'localhost.example/a', '128.0.0.1/a', '127.0.0.1.example/a'].some((text) =>
      isLoopback(parseReference(text)),
    ),
  );
});

test('parseReference() reads what formatReference() writes, and throws only its own error', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      try {
        const full = formatReference(parseReference(text));
        assert.equal(formatReference(parseReference(full)), full);
      } catch (error) {
        assert.ok(error instanceof PodvmError);
      }
    }),
  );
});
