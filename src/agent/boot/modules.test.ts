import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Modules } from './modules.ts';

const list = [
  'boot a a.ko -',
  'boot b b.ko a',
  'demand c_c c-c.ko.xz b',
  'demand x x.ko y',
  'demand y y.ko x',
  'nonsense',
  '',
];

function parts(fails: Readonly<Record<string, string>> = {}) {
  const loaded: string[] = [];
  return {
    loaded,
    readText: () => list.join('\n'),
    loadModule: (path: string) => {
      const code = fails[path];
      if (code !== undefined) throw Object.assign(new Error(code), { code });
      loaded.push(path);
    },
  };
}

describe('Modules', () => {
  it('load() throws the kernel’s refusal, and retries the next time', () => {
    const kernel = parts({ '/lib/modules/a.ko': 'ENOEXEC' });
    const modules = new Modules(kernel);
    assert.throws(() => modules.load('b'), /ENOEXEC/);
    assert.throws(() => modules.load('b'), /ENOEXEC/);
    assert.deepEqual(kernel.loaded, []);
  });

  it('load() ignores missing hardware', () => {
    assert.equal(new Modules(parts({ '/lib/modules/a.ko': 'ENODEV' })).load('a'), false);
  });

  it('load() treats an unknown name as built in', () => {
    const kernel = parts();
    assert.equal(new Modules(kernel).load('virtio_ring'), false);
    assert.deepEqual(kernel.loaded, []);
  });

  it('load() ends for a circular list', () => {
    assert.equal(new Modules(parts()).load('x'), true);
  });

  it('load() loads dependencies first, and every module once', () => {
    const kernel = parts();
    const modules = new Modules(kernel);
    modules.load('c-c');
    modules.load('b');
    assert.deepEqual(kernel.loaded, ['/lib/modules/a.ko', '/lib/modules/b.ko', '/lib/modules/c-c.ko.xz']);
  });

  it('bootNames has the order of the list', () => {
    assert.deepEqual(new Modules(parts()).bootNames, ['a', 'b']);
  });
});
