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

function parts(fails: Readonly<Record<string, string>> = {}, words = 'quiet panic=-1') {
  const loaded: string[] = [];
  return {
    loaded,
    readText: (path: string) => (path === '/proc/cmdline' ? `${words}\n` : list.join('\n')),
    loadModule: (path: string, parameters: string) => {
      const code = fails[path];
      if (code !== undefined) throw Object.assign(new Error(code), { code });
      loaded.push(parameters === '' ? path : `${path} ${parameters}`);
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

  it('load() gives a module its parameters of the kernel’s arguments', () => {
    const kernel = parts({}, 'quiet b.c=1 bb.d=2 b.e c_c.f=x,y b=3');
    new Modules(kernel).load('c-c');
    assert.deepEqual(kernel.loaded, ['/lib/modules/a.ko', '/lib/modules/b.ko c=1 e', '/lib/modules/c-c.ko.xz f=x,y']);
  });

  it('bootNames has the order of the list', () => {
    assert.deepEqual(new Modules(parts()).bootNames, ['a', 'b']);
  });
});
