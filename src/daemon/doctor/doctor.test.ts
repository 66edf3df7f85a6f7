import assert from 'node:assert/strict';
import { test } from 'node:test';
import { distributionFinding } from './doctor.ts';

test('doctor reports a distribution on which podvm has not been tried', () => {
  const tried = distributionFinding({ name: 'Ubuntu 24.04.1 LTS', isTried: true });
  assert.deepEqual(tried, { name: 'distribution', status: 'ok', detail: 'Ubuntu 24.04.1 LTS' });
  const other = distributionFinding({ name: 'Fedora\u001b[2J 43', isTried: false });
  assert.deepEqual([other.status, other.detail], ['warn', 'PodVM has not been tried on Fedora\\u001b[2J 43']);
  assert.match(other.fix ?? '', /Debian 12, Debian 13, Ubuntu 24\.04/);
});
