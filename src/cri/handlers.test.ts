import assert from 'node:assert/strict';
import { test } from 'node:test';
import { templateOfHandler } from './handlers.ts';

test('templateOfHandler() supports the runtime handlers, and lists them for an unknown one', () => {
  const choices = ['', 'podvm', 'podvm-namespace', 'podvm-own-boot'].map((name) => templateOfHandler(name));
  assert.deepEqual(choices, ['on', 'on', 'namespace', 'off']);
  assert.throws(() => templateOfHandler('runc'), { kind: 'invalid', message: /"runc"/, fix: /podvm-namespace/ });
});
