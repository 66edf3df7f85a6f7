import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { machineMoves, type Machine, type MachineSpec } from '../driver.ts';
import { assertNothingLeft, type DriverHarness, type Harness, kind, soon } from './driver-harness.ts';
import { describeRunning } from './running-machine.conformance.ts';

export interface DriverSuiteOptions {
  readonly skip?: string | false;
  /** Times after the beginning of a start at which it is aborted, in `ms`. */
  readonly abortsAtMs: readonly number[];
}

/** The suite that every `MachineDriver` passes. */
export function describeMachineDriver(name: string, open: () => Promise<DriverHarness>, options: DriverSuiteOptions) {
  describe(`the ${name} driver`, { skip: options.skip ?? false, timeout: 300_000 }, () => {
    let harness: DriverHarness;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    describe('start()', () => describeStart(() => harness, options));
    describe('a running machine', () => describeRunning(() => harness));
    describe('the end of a machine', () => describeEnd(() => harness));
    describe('adopt()', () => describeAdopt(() => harness));
    describe('makeTemplate()', () => describeTemplates(() => harness));
  });
}

function describeStart(harness: Harness, { abortsAtMs }: DriverSuiteOptions): void {
  test('refuses invalid ids, memory sizes, vcpus and users', async () => {
    const spec = await harness().makeSpec();
    const bad: readonly Partial<MachineSpec>[] = [
      { id: '' },
      { id: 'a/../b' },
      { id: 'x'.repeat(41) },
      { memoryMiB: 0 },
      { memoryMiB: 63 },
      { memoryMiB: 2 ** 20 + 1 },
      { memoryMiB: 128.5 },
      { memoryMiB: Number.NaN },
      { vcpus: 0 },
      { vcpus: 1.5 },
      { vcpus: 65 },
      { uid: 0 },
      { uid: -1 },
    ];
    for (const change of bad) {
      await assert.rejects(harness().driver.start({ ...spec, ...change }, soon()), kind('invalid'));
    }
    await assertNothingLeft(harness(), spec);
  });

  test('refuses to restore without a template', async () => {
    const spec = await harness().makeSpec();
    const { memoryMiB, vcpus } = spec;
    assert.equal(await harness().driver.hasTemplate({ memoryMiB, vcpus, hasNic: false }), false);
    await assert.rejects(harness().driver.start({ ...spec, from: 'restore' }, soon()), kind('notFound'));
    await assertNothingLeft(harness(), spec);
  });

  test('refuses a missing directory', async () => {
    const spec = await harness().makeSpec();
    await assert.rejects(harness().driver.start({ ...spec, directory: `${spec.directory}/missing` }, soon()));
    await assertNothingLeft(harness(), spec);
  });

  test('leaves nothing when it is cancelled before it begins', async () => {
    const spec = await harness().makeSpec();
    await assert.rejects(harness().driver.start(spec, AbortSignal.abort()), kind('cancelled'));
    await assertNothingLeft(harness(), spec);
  });

  test('leaves nothing when it is cancelled while it runs', async () => {
    for (const ms of abortsAtMs) {
      const spec = await harness().makeSpec();
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), ms);
      const outcome = await harness()
        .driver.start(spec, stop.signal)
        .catch((error: unknown) => error);
      clearTimeout(timer);
      if (outcome instanceof Error) kind('cancelled')(outcome);
      else await (outcome as Machine).kill(); // SAFE: start returned a machine before the abort
      await assertNothingLeft(harness(), spec);
    }
  });

  test('returns a running machine with the phases of its start and a record that survives JSON', async () => {
    const spec = await harness().makeSpec();
    await using machine = await harness().driver.start(spec, soon());
    assert.equal(machine.state, 'running');
    assert.equal(machine.id, spec.id);
    assert.ok(machine.phases.length > 0);
    for (const { name, ms } of machine.phases) assert.ok(name !== '' && ms >= 0, `${name} took ${ms} ms`);
    const { driver, id, directory, uid, pid } = machine.record;
    assert.deepEqual(
      { driver, id, directory, uid },
      { driver: harness().driver.name, id: spec.id, directory: spec.directory, uid: spec.uid },
    );
    assert.ok(pid > 1);
    assert.deepEqual(JSON.parse(JSON.stringify(machine.record)), machine.record);
    assert.equal(new Set(await machine.vcpuThreads(soon())).size, spec.vcpus);
  });

  test('keeps machines apart that start concurrently', async () => {
    const specs = [await harness().makeSpec(), await harness().makeSpec()];
    const [one, other] = await Promise.all(specs.map((spec) => harness().driver.start(spec, soon())));
    assert.ok(one && other);
    assert.notEqual(one.record.pid, other.record.pid);
    await one.kill();
    assert.equal(other.state, 'running');
    await other.kill();
    for (const spec of specs) await assertNothingLeft(harness(), spec);
  });
}

function describeEnd(harness: Harness): void {
  const start = async () => {
    const spec = await harness().makeSpec();
    return { spec, machine: await harness().driver.start(spec, soon()) };
  };

  test('kill() ends it once when it is called repeatedly', async () => {
    const { spec, machine } = await start();
    const exits = await Promise.all([machine.kill(), machine.kill(), machine.exited]);
    exits.push(await machine.kill(), await machine.stop(soon()));
    for (const exit of exits) assert.equal(exit, exits[0], 'one exit for all callers');
    assert.equal(exits[0]?.state, 'failed');
    assert.match(exits[0]?.reason ?? '', /killed by us/);
    assert.equal(machine.state, 'failed');
    await assertNothingLeft(harness(), spec);
  });

  test('disposing does the same, and is idempotent', async () => {
    const { spec, machine } = await start();
    await machine[Symbol.asyncDispose]();
    await machine[Symbol.asyncDispose]();
    assert.equal(machine.state, 'failed');
    await assertNothingLeft(harness(), spec);
  });

  test('stop() kills at its deadline', async () => {
    const { spec, machine } = await start();
    assert.equal((await machine.stop(AbortSignal.abort())).state, 'failed');
    await assertNothingLeft(harness(), spec);
  });

  test('kill() interrupts a pending stop()', async () => {
    const { spec, machine } = await start();
    const states = [machine.state];
    const stopping = machine.stop(soon());
    states.push(machine.state);
    await machine.kill();
    states.push((await stopping).state);
    const isLegal = states.every((state, at) => {
      const from = states[at - 1];
      return from === undefined || from === state || (machineMoves[from] as readonly string[]).includes(state);
    });
    assert.ok(isLegal, states.join(' -> '));
    await assertNothingLeft(harness(), spec);
  });

  test('a machine whose guest powers off is stopped, not failed', async () => {
    const { spec, machine } = await start();
    await harness().powerOffGuest(machine);
    const exit = await machine.exited;
    assert.deepEqual([exit.state, exit.reason, exit.code], ['stopped', 'the guest powered off', 0]);
    assert.equal((await machine.stop(soon())).state, 'stopped');
    await assertNothingLeft(harness(), spec);
  });

  test('a VMM killed from outside fails, with the reason', async () => {
    const { spec, machine } = await start();
    await harness().killFromOutside(machine);
    const exit = await machine.exited;
    assert.equal(exit.state, 'failed');
    assert.match(exit.reason, /SIGKILL/);
    await assert.rejects(machine.connect(soon()), kind('unavailable'));
    await assertNothingLeft(harness(), spec);
  });
}

function describeAdopt(harness: Harness): void {
  test('finds no machine when the process is gone, different or foreign', async () => {
    const { driver } = harness();
    const spec = await harness().makeSpec();
    const machine = await driver.start(spec, soon());
    const { record } = machine;
    assert.equal(await driver.adopt({ ...record, startTicks: '1234567890123' }, soon()), undefined);
    assert.equal(await driver.adopt({ ...record, driver: 'other' }, soon()), undefined);
    await machine.kill();
    assert.equal(await driver.adopt(record, soon()), undefined);
  });

  test('takes over a machine whose starter is gone, with all operations', async () => {
    const { driver } = harness();
    const spec = await harness().makeSpec();
    const record = await harness().startElsewhere(spec);
    const machine = await driver.adopt(record, soon());
    assert.ok(machine);
    assert.equal(machine.state, 'running');
    assert.deepEqual(machine.record, record);
    await machine.learnDevices(soon());
    await harness().makeDiskFile(spec, 'late.img');
    await machine.attachDisk({ serial: 'late', file: 'late.img', readOnly: false }, soon());
    assert.equal((await machine.connect(soon())).destroyed, false);
    assert.equal((await machine.kill()).state, 'failed');
    await assertNothingLeft(harness(), spec);
  });
}

function describeTemplates(harness: Harness): void {
  test('makes no template when the exercise fails, and leaves nothing', async () => {
    const { driver } = harness();
    const spec = await harness().makeSpec();
    const { memoryMiB, vcpus } = spec;
    const failure = new Error('no exercise today');
    await assert.rejects(
      driver.makeTemplate(spec, () => Promise.reject(failure), soon()),
      failure,
    );
    assert.equal(await driver.hasTemplate({ memoryMiB, vcpus, hasNic: false }), false);
    await assertNothingLeft(harness(), spec);
  });

  test('makes a template that restores machines of its shape only', async () => {
    const { driver } = harness();
    const spec = await harness().makeSpec();
    const { memoryMiB, vcpus } = spec;
    let seen = '';
    await driver.makeTemplate(spec, async ({ state }) => void (seen = state), soon());
    assert.equal(seen, 'running');
    await assertNothingLeft(harness(), spec);
    assert.equal(await driver.hasTemplate({ memoryMiB, vcpus, hasNic: false }), true);
    assert.equal(await driver.hasTemplate({ memoryMiB: memoryMiB * 2, vcpus, hasNic: false }), false);
    assert.ok((await driver.templateMadeAt({ memoryMiB, vcpus, hasNic: false })) instanceof Date);
    assert.equal(await driver.templateMadeAt({ memoryMiB: memoryMiB * 2, vcpus, hasNic: false }), undefined);
    const clone = await harness().makeSpec();
    await using machine = await driver.start({ ...clone, from: 'restore' }, soon());
    assert.equal(machine.state, 'running');
    await machine.kill();
    await assertNothingLeft(harness(), clone);
    assert.equal(await driver.hasTemplate({ memoryMiB, vcpus, hasNic: false, tenant: 'a' }), false);
    const tenants = await harness().makeSpec();
    await assert.rejects(driver.start({ ...tenants, tenant: 'a', from: 'restore' }, soon()), kind('notFound'));
  });

  test("makes a tenant's template that restores only that tenant's machines", async () => {
    const { driver } = harness();
    const shaped = { ...(await harness().makeSpec()), vcpus: 2 }; // used by no other test
    const { memoryMiB, vcpus } = shaped;
    await driver.makeTemplate({ ...shaped, tenant: 'a' }, async () => {}, soon());
    const has = async (tenant?: string) =>
      await driver.hasTemplate({ memoryMiB, vcpus, hasNic: false, ...(tenant === undefined ? {} : { tenant }) });
    assert.deepEqual([await has('a'), await has('b'), await has()], [true, false, false]);
    const clone = { ...(await harness().makeSpec()), vcpus, tenant: 'a' };
    await using machine = await driver.start({ ...clone, from: 'restore' }, soon());
    assert.equal(machine.state, 'running');
    await machine.kill();
    await assertNothingLeft(harness(), clone);
  });
}
