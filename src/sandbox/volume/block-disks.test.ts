import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError, type ErrorKind } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { createBlockDisks } from './block-disks.ts';
import { createBlockMode, createDeviceMode } from './block-mode.ts';
import type { HostMode } from './host-mode.ts';
import { defaultLimits } from '../limits.ts';

const never = new AbortController().signal;
const dataMount = {
  source: { kind: 'host', path: import.meta.filename, propagation: 'private' },
  mountPath: '/data',
  readOnly: false,
} as const;
const device = { hostPath: import.meta.filename, devicePath: '/dev/data', readOnly: true };

const taken = async (mode: HostMode) => (await mode.find(dataMount, never)) ?? assert.fail('not taken');

/** A machine and a guest that record their calls, and fail where told. */
function place(failing: Readonly<Record<string, ErrorKind>> = {}) {
  const journal: string[] = [];
  const step = async (what: string) => {
    journal.push(what);
    const kind = failing[what];
    if (kind !== undefined) throw new PodvmError(kind, `Cannot ${what}`);
  };
  const claims = new AsyncDisposableStack();
  const machine = {
    record: { driver: 'fake', id: 'm', directory: '/', pid: 1, startTicks: '1', uid: 1, memoryMiB: 1 },
    attachDisk: () => step('plug'),
    detachDisk: () => step('unplug'),
    growDisk: () => step('grow'),
  };
  const guest = {
    // SAFE: these answers are not used
    call: (async (method: string) => await step(method)) as unknown as Parameters<
      typeof createBlockMode
    >[0]['guest']['call'],
  };
  const claimBlock = async () => {
    await step('claim');
    let isHeld = true;
    const record = {
      path: '/disk',
      readOnly: false,
      device: { major: 7, minor: 1 },
      keeper: { pid: 1, startTicks: '1' },
    };
    return {
      device: record.device,
      record,
      measure: async () => 512,
      async [Symbol.asyncDispose]() {
        if (isHeld) journal.push('give up');
        isHeld = false;
      },
    };
  };
  const parts = {
    machine,
    guest,
    claimBlock,
    adoptBlockClaim: claimBlock,
    claims,
    limits: defaultLimits,
    log: silentLog,
    fsGroup: undefined,
    paths: new Set([import.meta.filename]),
  };
  const all = { ...parts, disks: createBlockDisks(parts) };
  return { journal, claims, mode: createBlockMode(all), devices: createDeviceMode(all) };
}

test('a block volume is mounted by the guest, and unmounted and unplugged before it is released', async () => {
  const { journal, mode, claims } = place();
  const found = await taken(mode);
  const attached = await found.attach('host_1', never);
  assert.deepEqual(attached.guest, { volume: 'host_1' });
  const other = { ...dataMount, source: { ...dataMount.source, path: '/elsewhere' } } as const;
  assert.equal(await mode.find(other, never), undefined); // left to other modes
  await attached[Symbol.asyncDispose]();
  await claims[Symbol.asyncDispose]();
  assert.deepEqual(journal, [
    ...['claim', 'plug', 'attachDisk', 'createVolume'],
    ...['removeVolume', 'detachDisk', 'unplug', 'give up'],
  ]);
});

test('a device is not mounted, and read-only and writable devices are separate', async () => {
  const { journal, devices } = place();
  const found = await devices.find(device, never);
  await (await found.attach(never))[Symbol.asyncDispose]();
  assert.deepEqual(journal, ['claim', 'plug', 'attachDisk', 'detachDisk', 'unplug', 'give up']);
  assert.notEqual((await devices.find({ ...device, readOnly: false }, never)).key, found.key);
});

test('a disk that the guest refuses to mount is unplugged and released', async () => {
  const { journal, mode } = place({ attachDisk: 'failedPrecondition' });
  const found = await taken(mode);
  await assert.rejects(found.attach('host_1', never), { kind: 'failedPrecondition' });
  assert.deepEqual(journal.slice(-3), ['detachDisk', 'unplug', 'give up']);
});

test('a disk that could not be plugged in is released, unless the machine may have it', async () => {
  const sure = place({ plug: 'internal', unplug: 'notFound' });
  await assert.rejects((await taken(sure.mode)).attach('host_1', never));
  assert.equal(sure.journal.at(-1), 'give up');
  const unsure = place({ plug: 'internal', unplug: 'timeout' });
  await assert.rejects((await taken(unsure.mode)).attach('host_1', never));
  assert.equal(unsure.journal.at(-1), 'unplug');
  await unsure.claims[Symbol.asyncDispose]();
  assert.equal(unsure.journal.at(-1), 'give up');
});

test('a dead guest’s disk is released; one in use is kept until its machine has ended', async () => {
  const dead = place({ removeVolume: 'unavailable' });
  await (await (await taken(dead.mode)).attach('host_1', never))[Symbol.asyncDispose]();
  assert.deepEqual(dead.journal.slice(-3), ['removeVolume', 'unplug', 'give up']);

  for (const failing of [{ detachDisk: 'busy' }, { unplug: 'timeout' }] as const) {
    const { journal, mode, claims } = place(failing);
    const attached = await (await taken(mode)).attach('host_1', never);
    await assert.rejects(async () => await attached[Symbol.asyncDispose]());
    assert.equal(journal.includes('give up'), false);
    await claims[Symbol.asyncDispose]();
    assert.equal(journal.at(-1), 'give up');
  }
});

test('a disk that was taken over is released like any other, and its serial is not reused', async () => {
  const { mode } = place();
  const attached = await (await taken(mode)).attach('host_1', never);
  const block = attached.block ?? assert.fail('no record');
  const next = place();
  const held = { kind: 'host', mode: 'block', key: 'k', guest: attached.guest, block } as const;
  const adopted = (await next.mode.adopt?.(held, never)) ?? assert.fail('not taken over');
  assert.deepEqual(next.journal, ['claim']);
  const other = await (await next.devices.find(device, never)).attach(never);
  assert.equal(other.block.serial, 'block-1');
  await adopted[Symbol.asyncDispose]();
  assert.deepEqual(next.journal.slice(-4), ['removeVolume', 'detachDisk', 'unplug', 'give up']);
  assert.equal(await mode.adopt?.({ kind: 'host', mode: 'share', key: 'k', guest: attached.guest }, never), undefined);
});
