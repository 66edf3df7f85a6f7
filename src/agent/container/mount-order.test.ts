import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { cleanPath, notReplaced, parentsFirst } from './mount-order.ts';

const mount = (destination: string, source = destination) => ({ destination, type: 'bind', source, options: [] });
const places = (destinations: readonly string[]) =>
  parentsFirst(destinations.map((destination) => mount(destination))).map(({ destination }) => destination);

test('parentsFirst() mounts a directory before what is below it, in any spelling', () => {
  assert.deepEqual(places(['/etc/hosts', '/etc/ssl/certs', '/etc/ssl/', '//etc/.', '/']), [
    '/',
    '/etc',
    '/etc/hosts',
    '/etc/ssl',
    '/etc/ssl/certs',
  ]);
});

test('parentsFirst() leaves the later of two mounts at one path on top', () => {
  const sources = parentsFirst([mount('/a/b', '1'), mount('/a', '2'), mount('/a//b/', '3')]).map(
    ({ source }) => source,
  );
  assert.deepEqual(sources, ['2', '1', '3']);
});

test('parentsFirst() keeps every mount, each after its parents, for any order', () => {
  const name = fc.constantFrom('a', 'b', 'etc', '.', '');
  const path = fc.array(name, { minLength: 1, maxLength: 5 }).map((names) => `/${names.join('/')}`);
  fc.assert(
    fc.property(fc.array(path, { maxLength: 12 }), (paths) => {
      const ordered = places(paths);
      assert.deepEqual(ordered.toSorted(), paths.map(cleanPath).toSorted());
      ordered.forEach((place, at) => {
        for (const later of ordered.slice(at + 1)) assert.ok(!`${place}/`.startsWith(`${later}/`) || place === later);
      });
    }),
  );
});

test('cleanPath() resolves a path without reading the file system', () => {
  assert.equal(cleanPath('/a/../../b/./c//'), '/b/c');
  assert.equal(cleanPath('/'), '/');
});

test('notReplaced() leaves out system mounts that the container replaces', () => {
  const system = ['/proc', '/dev', '/dev/pts', '/dev/shm', '/sys'].map((destination) => mount(destination));
  const left = (own: string[]) =>
    notReplaced(
      system,
      own.map((destination) => mount(destination)),
    ).map(({ destination }) => destination);
  assert.deepEqual(left(['/dev/shm/']), ['/proc', '/dev', '/dev/pts', '/sys']);
  assert.deepEqual(left(['/dev']), ['/proc', '/sys']);
  assert.deepEqual(left(['/data']), ['/proc', '/dev', '/dev/pts', '/dev/shm', '/sys']);
});
