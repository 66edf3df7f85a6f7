import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { parseNodeExpectations } from './node-conformance-steps.ts';

const text = await readFile(new URL('node-conformance.json', import.meta.url), 'utf8');

test('node-conformance.json is a list of tests of a node, with a reason on every line', () => {
  const { leftOut, maySkip, podvm, runc } = parseNodeExpectations(text);
  for (const { spec } of [...leftOut, ...maySkip, ...podvm, ...runc]) assert.match(spec, /\[NodeConformance\]|\*$/);
});

test('parseNodeExpectations() takes no line without a reason', () => {
  assert.throws(() => parseNodeExpectations(text.replace(/"reason": ".+"/, '"reason": ""')));
});
