import assert from 'node:assert/strict';
import { test } from 'node:test';
import { firstCount } from './host-needs.ts';

test('firstCount() reads the first range of a user by name or number, as unshare does', () => {
  const text = 'anna:100000:65536\n1001:165536:1000\nanna:300000:5\n';
  assert.equal(firstCount(text, ['anna', '1000']), 65_536);
  assert.equal(firstCount(text, ['bert', '1001']), 1000);
  assert.equal(firstCount(text, ['carl', '1002']), 0);
  assert.equal(firstCount('', ['anna']), 0);
});
