import assert from 'node:assert/strict';
import { test } from 'node:test';
import { specsOf } from './integration-suite.ts';

const said = `=== RUN   TestStop
=== RUN   TestStop/hostpid
    stop_test.go:39: shares the host's namespaces
=== RUN   TestStop/podpid
    stop_test.go:52: Create
--- FAIL: TestStop (5.43s)
    --- FAIL: TestStop/hostpid (0.16s)
    --- PASS: TestStop/podpid (5.27s)
FAIL
`;

test('specsOf() returns the results of subtests in place of their test', () => {
  const [host, pod, ...others] = specsOf('TestStop', 1, said);
  assert.deepEqual(others, []);
  assert.equal(host?.name, 'TestStop/hostpid');
  assert.deepEqual([host?.outcome, host?.ms], ['failed', 160]);
  assert.equal(host?.message.trim(), "stop_test.go:39: shares the host's namespaces");
  assert.deepEqual(pod, { name: 'TestStop/podpid', outcome: 'passed', message: '', ms: 5270 });
});

test('specsOf() fails a test without a result, and one that fails beside its subtests', () => {
  const panics = specsOf('TestStop', 2, '=== RUN   TestStop\npanic: out of time\n');
  assert.deepEqual(
    panics.map(({ name, outcome }) => [name, outcome]),
    [['TestStop', 'failed']],
  );
  const after = specsOf('TestStop', 1, '--- FAIL: TestStop (1.00s)\n    --- PASS: TestStop/one (0.50s)\n');
  assert.deepEqual(
    after.map(({ name, outcome }) => `${name} ${outcome}`),
    ['TestStop/one passed', 'TestStop failed'],
  );
  const skipped = specsOf('TestStop', 0, '=== RUN   TestStop\n    no Docker\n--- SKIP: TestStop (0.00s)\nPASS\n');
  assert.deepEqual(
    skipped.map(({ outcome, message }) => [outcome, message.trim()]),
    [['skipped', 'no Docker']],
  );
});
