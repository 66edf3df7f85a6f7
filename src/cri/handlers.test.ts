import assert from 'node:assert/strict';
import { test } from 'node:test';
import { templateOfHandler } from './handlers.ts';

test('templateOfHandler() knows the runtime classes there are, and names them for another', () => {
  const choices = ['', 'podvm', 'podvm-namespace', 'podvm-own-boot'].map((name) => templateOfHandler(name));
  assert.deepEqual(choices, ['on', 'on', 'namespace', 'off']);
  assert.throws(() => templateOfHandler('runc'), { kind: 'invalid', message: /"runc"/, fix: /podvm-namespace/ });
});
