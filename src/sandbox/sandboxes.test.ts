import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kindOf, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { sandboxSpec } from './testing/examples.ts';
import type { SandboxSpec } from './sandbox.ts';
import { openSandboxes } from './sandboxes.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { assertNothingLeft, is, never, openFakeSandboxes } from './testing/fake-sandboxes.ts';

const withVolumes: SandboxSpec = {
  ...sandboxSpec,
  sysctls: { 'net.core.somaxconn': '1' }, // its start waits for the guest's connection
  volumes: [
    { name: 'data', kind: 'scratch' },
    { name: 'small', kind: 'scratch', sizeLimitBytes: 1024 * 1024 },
    { name: 'page', kind: 'push', files: [{ path: 'a/index.html', bytes: Buffer.from('hi'), mode: 0o644 }] },
  ],
};

const steps = [
  'network.prepare',
  'scratch',
  'driver.start',
  'link.connect',
  'network.connect',
  'machine.attachDisk',
  'call configure',
  'call connect',
  'call attachDisk',
  'volume disk',
  'call createVolume',
  'call beginPush',
  'call pushFile',
  'call commitPush',
];

test('run() refuses a volume that is too large for the guest before it makes a machine', async () => {
  await using place = await openFakeSandboxes();
  const { parts, sandboxes, directory } = place;
  const files = [{ path: 'key', bytes: new Uint8Array(16 * 1024 * 1024 + 1), mode: 0o644 }];
  await assert.rejects(
    sandboxes.run({ ...sandboxSpec, volumes: [{ name: 'huge', kind: 'push', files }] }, never),
    /volume huge: .* at most 16777216 bytes, got 16777217$/,
  );
  await assertNothingLeft(directory, parts);
});

for (const step of steps) {
  test(`run() leaves nothing when ${step} fails`, async () => {
    await using place = await openFakeSandboxes();
    const { parts, sandboxes, directory } = place;
    parts.before = async (each) => {
      if (each === step) throw new PodvmError('internal', `${step} failed`);
    };
    await assert.rejects(sandboxes.run(withVolumes, never), new RegExp(`${step} failed`));
    await assertNothingLeft(directory, parts);
    assert.deepEqual(sandboxes.list(), []);
    parts.before = async () => {};
    await sandboxes.run(withVolumes, never); // name, user id and directory are free again
  });

  test(`run() leaves nothing when it is aborted in ${step}`, async () => {
    await using place = await openFakeSandboxes();
    const { parts, sandboxes, directory } = place;
    for (const finishesLate of [false, true]) {
      const stop = new AbortController();
      parts.before = async (each, signal) => {
        if (each !== step) return;
        stop.abort();
        if (!finishesLate) signal.throwIfAborted();
      };
      await assert.rejects(sandboxes.run(withVolumes, stop.signal), (error) => kindOf(error) === 'cancelled');
      await assertNothingLeft(directory, parts);
    }
  });
}

for (const step of steps.slice(3)) {
  test(`run() reports the reason, and leaves nothing, when the machine dies in ${step}`, async () => {
    await using place = await openFakeSandboxes();
    const { parts, sandboxes, directory } = place;
    const started = Promise.withResolvers<void>();
    parts.before = async (each, signal) => {
      if (each === 'link.connect') started.resolve();
      if (each !== step) return;
      await started.promise; // a network is connected beside the start
      parts.killMachine('QEMU was killed by SIGKILL');
      await untilAborted(new Promise(() => {}), signal); // it waits for an answer
    };
    await assert.rejects(sandboxes.run(withVolumes, never), (error) => {
      assert.ok(is('unavailable')(error));
      assert.match(String(error), /Cannot start the sandbox: QEMU was killed by SIGKILL/);
      return true;
    });
    await assertNothingLeft(directory, parts);
  });
}

test('run() refuses a name in use, even while that sandbox starts', async () => {
  await using place = await openFakeSandboxes({ userIds: { first: 1000, count: 2 } });
  const { parts, sandboxes } = place;
  const open = Promise.withResolvers<void>();
  parts.before = (step) => (step === 'driver.start' ? open.promise : Promise.resolve());
  const first = sandboxes.run(sandboxSpec, never);
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  open.resolve();
  const sandbox = await first;
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  await sandbox.stop(0);
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists')); // its logs are still there
  await sandbox.remove();
  assert.equal(sandboxes.get('default', 'web'), undefined);
});

test('run() refuses invalid limits before it makes anything', async () => {
  await using place = await openFakeSandboxes();
  const { sandboxes, parts } = place;
  await assert.rejects(sandboxes.run({ ...sandboxSpec, resources: { memoryLimitBytes: 4096 } }, never), is('invalid'));
  await assertNothingLeft(place.directory, parts);
});

test('run() refuses when the disk is full', async () => {
  await using place = await openFakeSandboxes({ minFreeBytes: Number.MAX_SAFE_INTEGER });
  await assert.rejects(place.sandboxes.run(sandboxSpec, never), is('exhausted'));
});

test('run() fails as exhausted whichever step detects the full disk', async () => {
  await using place = await openFakeSandboxes();
  const { parts, sandboxes, directory } = place;
  for (const step of ['network.prepare', 'network.connect', 'scratch']) {
    parts.before = async (each) => {
      if (each === step) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    };
    await assert.rejects(sandboxes.run(sandboxSpec, never), (error) => kindOf(error) === 'exhausted');
    await assertNothingLeft(directory, parts);
  }
});

test('openSandboxes() refuses a directory that is in use', async () => {
  await using place = await openFakeSandboxes();
  const { directory, parts } = place;
  await assert.rejects(openSandboxes({ directory, parts, log: silentLog }, never), is('busy'));
});

test('updateVolume() sends a complete new version, and refuses paths that leave the volume', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(withVolumes, never);
  const file = { path: 'b', bytes: new Uint8Array(100_000), mode: 0o600 };
  await sandbox.updateVolume('page', [file], never);
  const methods = place.parts.guest.calls.slice(-4).map(({ method }) => method);
  assert.deepEqual(methods, ['beginPush', 'pushFile', 'pushFile', 'commitPush']);
  await assert.rejects(sandbox.updateVolume('page', [{ ...file, path: '../x' }], never), is('invalid'));
  await assert.rejects(sandbox.updateVolume('data', [file], never), is('failedPrecondition'));
  await assert.rejects(sandbox.updateVolume('none', [file], never), is('notFound'));
});

test('upgrade() gives new sandboxes the new parts; old parts are unused once their last sandbox is removed', async () => {
  await using there = await openFakeSandboxes({ userIds: { first: 1000, count: 3 } });
  const { sandboxes, parts } = there;
  const old = await sandboxes.run(sandboxSpec, never);
  const versions = { ...parts.versions, key: 'k2', qemu: '1:10.1' };
  const { unused } = await sandboxes.upgrade({ ...parts, versions }, never);
  let isUnused = false;
  void unused.then(() => {
    isUnused = true;
  });
  const newer = await sandboxes.run({ ...sandboxSpec, name: 'newer' }, never);
  assert.deepEqual([old.status.parts.qemu, newer.status.parts.qemu], ['1:10.0', '1:10.1']);
  assert.equal(old.status.state, 'ready');
  assert.equal(isUnused, false);
  await old.remove();
  await unused;
  assert.equal(newer.status.state, 'ready');
});

test('upgrade() to parts of which no template can be made changes nothing, and fails with a message', async () => {
  await using there = await openFakeSandboxes({ userIds: { first: 1000, count: 3 } });
  const { sandboxes, parts } = there;
  await (await sandboxes.run(sandboxSpec, never)).remove();
  const driver = {
    ...parts.driver,
    hasTemplate: async () => false,
    makeTemplate: () => Promise.reject(new PodvmError('internal', 'this kernel does not boot')),
  };
  const versions = { ...parts.versions, key: 'k2' };
  await assert.rejects(sandboxes.upgrade({ ...parts, driver, versions }, never), is('failedPrecondition'));
  const sandbox = await sandboxes.run(sandboxSpec, never);
  assert.equal(sandbox.status.parts.key, 'k1');
});

test('an upgrade that is cancelled while a template is made leaves no machine', async () => {
  await using there = await openFakeSandboxes();
  const { sandboxes, parts, directory } = there;
  await (await sandboxes.run(sandboxSpec, never)).remove();
  const making = Promise.withResolvers<void>();
  const driver: typeof parts.driver = {
    ...parts.driver,
    hasTemplate: async () => false,
    async makeTemplate(_spec, _exercise, signal) {
      making.resolve();
      await untilAborted(new Promise<never>(() => {}), signal);
    },
  };
  const stop = new AbortController();
  const upgrade = sandboxes.upgrade({ ...parts, driver }, stop.signal);
  await making.promise;
  stop.abort();
  await assert.rejects(upgrade, is('cancelled'));
  await assertNothingLeft(directory, parts);
});

test('without sandboxes, an upgrade leaves the old parts unused at once', async () => {
  await using there = await openFakeSandboxes();
  const { unused } = await there.sandboxes.upgrade(there.parts, never);
  await unused;
});
