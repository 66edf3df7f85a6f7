import assert from 'node:assert/strict';
import { test } from 'node:test';
import { podAnnotations } from '#base/pod-annotations.ts';
import { blockPathsOf } from './block-volumes.ts';
import { sandboxSpec } from '../testing/examples.ts';

const pathsOf = (value: string) => [
  ...blockPathsOf({ ...sandboxSpec, annotations: { [podAnnotations.blockVolumes.name]: value } }),
];

test('blockPathsOf() reads paths separated by commas, and an empty text as none', () => {
  assert.deepEqual([...blockPathsOf(sandboxSpec)], []);
  assert.deepEqual(pathsOf(''), []);
  assert.deepEqual(pathsOf('/srv/a.img, /dev/vg/b,'), ['/srv/a.img', '/dev/vg/b']);
});

test('blockPathsOf() refuses paths that are not plain and absolute, and too many paths', () => {
  for (const value of ['data', '/srv/../etc', '/srv/a,./b', '/srv//a']) {
    assert.throws(() => pathsOf(value), { kind: 'invalid', message: /block-volumes/ });
  }
  assert.throws(() => pathsOf(Array.from({ length: 65 }, (_, at) => `/d/${at}`).join(',')), { kind: 'invalid' });
});
