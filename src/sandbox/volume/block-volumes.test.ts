import assert from 'node:assert/strict';
import { test } from 'node:test';
import { podAnnotations } from '#base/pod-annotations.ts';
import { blockPathsOf } from './block-volumes.ts';
import { sandboxSpec } from '../testing/examples.ts';

const pathsOf = (value: string) => [
  ...blockPathsOf({ ...sandboxSpec, annotations: { [podAnnotations.blockVolumes.name]: value } }),
];

test('blockPathsOf() takes paths with commas between them, and none where nothing is said', () => {
  assert.deepEqual([...blockPathsOf(sandboxSpec)], []);
  assert.deepEqual(pathsOf(''), []);
  assert.deepEqual(pathsOf('/srv/a.img, /dev/vg/b,'), ['/srv/a.img', '/dev/vg/b']);
});

test('blockPathsOf() refuses what is no plain absolute path, and too many', () => {
  for (const value of ['data', '/srv/../etc', '/srv/a,./b', '/srv//a']) {
    assert.throws(() => pathsOf(value), { kind: 'invalid', message: /block-volumes/ });
  }
  assert.throws(() => pathsOf(Array.from({ length: 65 }, (_, at) => `/d/${at}`).join(',')), { kind: 'invalid' });
});
