import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loginsFor } from './logins.ts';
import { parseReference } from '#base/image-reference.ts';

const chosen = (image: string, ...registries: string[]) =>
  loginsFor(
    parseReference(image),
    registries.map((registry) => ({ registry })),
  ).map((login) => login.registry);

test('loginsFor() returns logins of the registry and of a part of it, the longest path first', () => {
  assert.deepEqual(chosen('quay.io/team/app:1', 'quay.io', 'quay.io/team', 'quay.io/other', 'gcr.io'), [
    'quay.io/team',
    'quay.io',
  ]);
  assert.deepEqual(chosen('localhost:5000/a', 'localhost', 'localhost:5000', 'localhost:5001'), ['localhost:5000']);
  assert.deepEqual(chosen('quay.io/a', 'https://quay.io/', 'http://quay.io/v2/', 'quay.io/v1'), [
    'https://quay.io/',
    'http://quay.io/v2/',
    'quay.io/v1',
  ]);
  assert.deepEqual(chosen('quay.io/a', 'io', '', 'xquay.io', 'quay.io.example'), []);
});

test('loginsFor() knows the names of Docker Hub', () => {
  for (const image of ['nginx', 'docker.io/library/nginx:1', 'team/app']) {
    assert.deepEqual(chosen(image, 'https://index.docker.io/v1/', 'docker.io'), [
      'https://index.docker.io/v1/',
      'docker.io',
    ]);
  }
});

test('loginsFor() matches a glob within one label of a host', () => {
  assert.deepEqual(
    chosen('eu.r.example/a', '*.r.example', '*.example', 'e*.r.example', '*u.r.example', 'e*x.r.example'),
    ['e*.r.example', '*u.r.example', '*.r.example'],
  );
  assert.deepEqual(chosen(`${'a'.repeat(60)}.example/a`, `${'a*'.repeat(200)}b.example`), []);
});

test('loginsFor() tries at most eight', () => {
  assert.equal(chosen('r.example/a', ...Array.from({ length: 100 }, () => 'r.example')).length, 8);
});
