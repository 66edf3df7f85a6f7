import { once } from 'node:events';
import { mkdtemp, readdir, rm, mkdir, writeFile, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import type { Machine, MachineSpec } from '../driver.ts';
import { describeMachineDriver } from './driver.conformance.ts';
import type { DriverHarness } from './driver-harness.ts';
import { createFakeDriver, type FakeDriver } from './fake-driver.ts';

const signal = new AbortController().signal;

async function openHarness(): Promise<DriverHarness & { readonly driver: FakeDriver }> {
  const root = await mkdtemp(join(tmpdir(), 'podvm-fake-'));
  const driver = createFakeDriver();
  const played = (machine: Machine) => {
    const found = driver.machines.find((one) => one === machine);
    assert.ok(found);
    return found;
  };
  let made = 0;
  return {
    driver,
    makeSpec: async () => {
      const id = `fake-${(made += 1)}`;
      const directory = join(root, id);
      await mkdir(directory);
      return { id, directory, memoryMiB: 128, vcpus: 1, uid: 1000, from: 'boot' };
    },
    makeDiskFile: ({ directory }, file) => writeFile(join(directory, file), ''),
    growDiskFile: ({ directory }, file, sizeBytes) => truncate(join(directory, file), sizeBytes),
    leftovers: async ({ id, directory }) => [
      ...driver.machines.filter((one) => one.id === id && !one.isGone).map(() => `machine ${id}`),
      ...(await readdir(directory)).filter((file) => !file.endsWith('.img')),
    ],
    killFromOutside: async (machine) => played(machine).die('QEMU was killed by SIGKILL'),
    powerOffGuest: async (machine) => played(machine).powerOff(),
    startElsewhere: async (spec) => (await driver.start(spec, signal)).record,
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}

describeMachineDriver('fake', openHarness, { abortsAtMs: [0] });

test('start() of the fake fails once with the given error', async () => {
  await using harness = await openHarness();
  const spec: MachineSpec = await harness.makeSpec();
  const error = new PodvmError('exhausted', 'Cannot start machine: no memory');
  harness.driver.failNextStart(error);
  await assert.rejects(harness.driver.start(spec, signal), error);
  assert.equal((await harness.driver.start(spec, signal)).state, 'running');
});

test("the fake's channel carries bytes both ways, and hangUp() breaks it", async () => {
  await using harness = await openHarness();
  await harness.driver.start(await harness.makeSpec(), signal);
  const [machine] = harness.driver.machines;
  assert.ok(machine);
  const host = await machine.connect(signal);
  host.write('ping');
  const [ping] = await once(machine.agentEnd, 'data', { signal });
  assert.equal(String(ping), 'ping');
  machine.hangUp();
  assert.equal(host.destroyed, true);
  assert.equal(machine.state, 'running');
});
