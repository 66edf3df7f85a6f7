import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Drivers } from './drivers.ts';

function guest() {
  const done: string[] = [];
  const drivers = new Drivers({
    engine: { writeExisting: (path: string, text: string | Uint8Array) => void done.push(`${path}=${String(text)}`) },
    loadModule: (name) => {
      if (name === 'bridge') throw new Error('no bridge');
      done.push(name);
      return true;
    },
    warn: (text) => done.push(text),
  });
  return { done, drivers };
}
const noBridge = 'what needs the kernel module bridge cannot be done here: no bridge';
const sealing = [noBridge, 'fuse', '/proc/sys/kernel/modules_disabled=1'];

test('beforeContainer() seals the kernel before a container that could load modules, once, what is missing or not', () => {
  const { done, drivers } = guest();
  drivers.use('sealed');
  drivers.beforeContainer(['CAP_CHOWN']);
  assert.deepEqual(done, []);
  drivers.beforeContainer(['CAP_SYS_MODULE', 'CAP_NET_ADMIN']);
  drivers.beforeContainer(['CAP_SYS_MODULE']);
  drivers.beforeContainer(['CAP_NET_ADMIN']);
  assert.deepEqual(done, sealing);
});

test('beforeContainer() leaves a machine open that is not a pod’s, or whose pod asked for it', () => {
  const { done, drivers } = guest();
  drivers.beforeContainer(['CAP_SYS_MODULE', 'CAP_NET_ADMIN']);
  drivers.use('open');
  drivers.beforeContainer(['CAP_SYS_MODULE']);
  assert.deepEqual(done, [noBridge]);
});

test('load() loads what a pod asks for, and tells of what it cannot', () => {
  const { done, drivers } = guest();
  drivers.load('sctp');
  drivers.load('bridge');
  assert.deepEqual(done, ['sctp', noBridge]);
});
