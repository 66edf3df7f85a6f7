import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findByName } from './pod-table.ts';

test('findByName() finds a pod by its name, by its namespace, and as kubectl writes it', () => {
  const pods = [
    { namespace: 'default', name: 'web' },
    { namespace: 'shop', name: 'db' },
    { namespace: 'pod', name: 'db' },
  ];
  assert.equal(findByName(pods, undefined, 'web'), pods[0]);
  assert.equal(findByName(pods, 'shop', 'db'), pods[1]);
  assert.throws(() => findByName(pods, undefined, 'db'), { kind: 'invalid', message: /found shop\/db, pod\/db/ });
  for (const word of ['pods', 'po']) assert.equal(findByName(pods, word, 'web'), pods[0]);
  assert.throws(() => findByName(pods, 'pods', 'wev'), { kind: 'notFound', fix: /Did you mean web\?/ });
  assert.throws(() => findByName(pods, 'shop', 'web'), { kind: 'notFound', message: /shop\/web/ });
  assert.equal(findByName(pods, 'pod', 'db'), pods[2]);
  // `podvm rm -f pod/web` must not reach a pod of another namespace.
  assert.throws(() => findByName(pods, 'pod', 'web'), { kind: 'notFound', message: /pod\/web/ });
});

test('findByName() says where the pods of an object are, as kubectl names it', () => {
  const pods = [{ namespace: 'default', name: 'web-0' }];
  assert.throws(() => findByName(pods, 'deploy', 'web'), { kind: 'notFound', fix: /`podvm ps -o wide`/ });
  assert.throws(() => findByName(pods, 'shop', 'web'), { kind: 'notFound', fix: /podvm ps -a/ });
});
