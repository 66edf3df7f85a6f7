import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Drivers } from './drivers.ts';

const list = [
  'module x_tables x_tables.ko -',
  'module ip_tables ip_tables.ko x_tables',
  'module ip6_tables ip6_tables.ko x_tables',
  'module tun tun.ko -',
  '',
].join('\n');

function guest({ hasDisk = true } = {}) {
  const done: string[] = [];
  const engine = {
    writeExisting: (path: string, text: string | Uint8Array) => void done.push(`${path}=${String(text).trim()}`),
    readText: (path: string) => (hasDisk ? (done.push(`read ${path}`), list) : assert.fail('no disk')),
    loadModuleAside: (path: string) => done.push(path.replace('/disks/modules/', '')),
    setTimer: () => 0,
    changeMode: (path: string, mode: number) => void done.push(`chmod ${mode.toString(8)} ${path}`),
    makeDirectories: () => {},
    symlink: (target: string, path: string) => void done.push(`${path} -> ${target}`),
    listenUnix: () => 7,
    accept: () => 'again' as never,
    receive: () => ({ bytes: 0, fds: [] }),
    watch: () => {},
    unwatch: () => {},
    write: () => 1,
    close: () => {},
    encodeUtf8: () => new Uint8Array(1),
    decodeUtf8: () => '',
  };
  const drivers = new Drivers({
    engine,
    children: { wait: async (pid) => ({ pid, code: 0, signal: undefined, maxRssKiB: 0 }) },
    disks: { path: (serial) => `/disks/${serial}` },
    loadModule: (name) => {
      if (name === 'bridge') throw new Error('no bridge');
      done.push(name);
      return true;
    },
    warn: (text) => done.push(text),
  });
  return { done, drivers };
}

const signaturesOnly = '/sys/module/module/parameters/sig_enforce=1';
const opened = [
  'read /disks/modules/modules.list',
  '/bin/podvm-modprobe -> /init',
  '/proc/sys/kernel/modprobe=/bin/podvm-modprobe',
];

test('use() makes the kernel require signatures, unless the pod has open kernel modules', () => {
  for (const [mode, expected] of [['sealed', [signaturesOnly]] as const, ['open', []] as const]) {
    const { done, drivers } = guest();
    drivers.use(mode);
    assert.deepEqual(done, expected);
  }
});

test('beforeContainer() changes nothing for containers that need no modules', async () => {
  const { done, drivers } = guest();
  await drivers.beforeContainer({}, { hasOwnUsers: false });
  await drivers.beforeStart();
  assert.deepEqual(done, []);
});

test('beforeContainer() starts to serve the kernel’s requests once, and loads what the kernel never requests', async () => {
  const { done, drivers } = guest();
  for (let count = 0; count < 2; count += 1) {
    await drivers.beforeContainer({ modulesDisk: 'modules' }, { hasOwnUsers: false });
    await drivers.beforeStart();
  }
  assert.deepEqual(done, [...opened, 'x_tables.ko', 'ip_tables.ko', 'ip6_tables.ko']);
});

test('beforeContainer() makes the device for a container with a user namespace', async () => {
  const { done, drivers } = guest();
  await drivers.beforeContainer({ modulesDisk: 'modules' }, { hasOwnUsers: true });
  assert.ok(done.includes('tun.ko'));
  assert.equal(done.at(-1), 'chmod 666 /dev/net/tun');
});

test('beforeContainer() reports a machine that cannot have modules, and does not fail', async () => {
  const { done, drivers } = guest({ hasDisk: false });
  await drivers.beforeContainer({ modulesDisk: 'modules' }, { hasOwnUsers: false });
  assert.deepEqual(done, ['kernel modules cannot be loaded on demand here: no disk']);
});

test('load() loads what a pod asks for, and reports what it cannot load', () => {
  const { done, drivers } = guest();
  drivers.load('sctp');
  drivers.load('bridge');
  assert.deepEqual(done, ['sctp', 'features of the kernel module bridge are not available: no bridge']);
});
