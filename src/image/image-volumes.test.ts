import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { volumePaths, volumesSchema } from './image-volumes.ts';

test('volumePaths() makes paths absolute, plain and unique, and leaves out the root', () => {
  const declared = ['/data', 'relative/x/', '/data/', '/a/../b', '../../etc', '/', '..', '.', '', '//c//d'];
  assert.deepEqual(volumePaths(declared), ['/b', '/c/d', '/data', '/etc', '/relative/x']);
});

test('volumesSchema reads the keys of an object, and bounds their number', () => {
  assert.deepEqual(v.parse(volumesSchema, { '/data': {}, '/x': null }), ['/data', '/x']);
  const many = (count: number, path: string) =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [`${path}${at}`, {}]));
  const long = { [`/${'x'.repeat(1024)}`]: {} };
  for (const bad of ['/data', 7, many(501, '/v'), { '/a\0b': {} }, long, many(90, 'x'.repeat(1000))])
    assert.equal(v.safeParse(volumesSchema, bad).success, false);
  assert.equal(v.parse(volumesSchema, many(500, '/v')).length, 500);
});
