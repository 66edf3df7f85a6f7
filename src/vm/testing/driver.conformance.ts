import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import {
  machineMoves,
  maxPorts,
  type Machine,
  type MachineDriver,
  type MachineRecord,
  type MachineSpec,
} from '../driver.ts';

/** A driver and its surroundings, for the suite. Disposing removes everything that the suite left. */
export interface DriverHarness extends AsyncDisposable {
  readonly driver: MachineDriver;
  /** Makes a valid spec that boots, with a unique id and an empty directory. */
  makeSpec(): Promise<MachineSpec>;
  /** Creates a disk's file in the machine's directory, owned by its user. */
  makeDiskFile(spec: MachineSpec, file: string): Promise<void>;
  growDiskFile(spec: MachineSpec, file: string, sizeBytes: number): Promise<void>;
  /** Lists processes and mounts of that machine, and the files in its directory except logs. Empty when it is gone. */
  leftovers(spec: MachineSpec): Promise<readonly string[]>;
  /** Kills the VMM without the driver. */
  killFromOutside(machine: Machine): Promise<void>;
  /** Makes the guest power itself off. */
  powerOffGuest(machine: Machine): Promise<void>;
  /** Starts a machine in another process, which then ends. */
  startElsewhere(spec: MachineSpec): Promise<MachineRecord>;
}

export interface DriverSuiteOptions {
  readonly skip?: string | false;
  /** Times after the beginning of a start at which it is aborted, in `ms`. */
  readonly abortsAtMs: readonly number[];
}

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

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

type Harness = () => DriverHarness;

async function assertNothingLeft(harness: DriverHarness, spec: MachineSpec): Promise<void> {
  assert.deepEqual(await harness.leftovers(spec), []);
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

/** Uses one machine for all tests, which run in order. */
function describeRunning(harness: Harness): void {
  let spec: MachineSpec;
  let machine: Machine;
  before(async () => {
    spec = await harness().makeSpec();
    machine = await harness().driver.start(spec, soon());
    for (const file of ['one.img', 'two.img']) await harness().makeDiskFile(spec, file);
  });
  after(async () => {
    await machine.kill();
    await assertNothingLeft(harness(), spec);
  });
  const disk = { serial: 'one', file: 'one.img', readOnly: false };

  test('refuses disks with bad names, and missing files', async () => {
    for (const serial of ['', 'A', 'a,b', 'x'.repeat(21), '../x']) {
      await assert.rejects(machine.attachDisk({ ...disk, serial }, soon()), kind('invalid'));
    }
    for (const file of ['', '.', '..', '../one.img', 'sockets/qmp', '/etc/passwd', 'a,b', 'x'.repeat(101)]) {
      await assert.rejects(machine.attachDisk({ ...disk, file }, soon()), kind('invalid'));
    }
    await assert.rejects(machine.attachDisk({ ...disk, file: 'none.img' }, soon()), kind('failedPrecondition'));
    await machine.attachDisk(disk, soon()); // none of these took the serial
    await assert.rejects(machine.attachDisk({ ...disk, file: 'two.img' }, soon()), kind('alreadyExists'));
    await machine.attachDisk({ ...disk, serial: 'two', file: 'two.img', readOnly: true }, soon());
  });

  test('leaves a disk unattached after a cancelled attach, and attaches it the next time', async () => {
    await assert.rejects(machine.attachDisk({ ...disk, serial: 'never' }, AbortSignal.abort()), kind('cancelled'));
    for (const turns of [1, 2, 3, 5, 8, 13]) {
      const again = { ...disk, serial: `again-${turns}`, file: 'two.img', readOnly: true };
      const stop = new AbortController();
      const attaching = machine.attachDisk(again, stop.signal);
      attaching.catch(() => undefined);
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      stop.abort();
      const isAttached = await attaching.then(
        () => true,
        (error: unknown) => !kind('cancelled')(error),
      );
      if (!isAttached) await machine.attachDisk(again, soon());
    }
  });

  test('refuses to detach or grow a disk that is not attached', async () => {
    await assert.rejects(machine.detachDisk('three', soon()), kind('notFound'));
    await assert.rejects(machine.growDisk('three', 2 ** 21, soon()), kind('notFound'));
  });

  test('grows a disk whose file has grown', async () => {
    await harness().makeDiskFile(spec, 'grown.img');
    await machine.attachDisk({ serial: 'grown', file: 'grown.img', readOnly: false }, soon());
    await harness().growDiskFile(spec, 'grown.img', 2 ** 22);
    await machine.growDisk('grown', 2 ** 22, soon());
  });

  test('refuses ports with bad names, and names in use', async () => {
    for (const name of ['', 'A', 'a,b', 'x'.repeat(21), '../x']) {
      await assert.rejects(machine.attachPort(name, soon()), kind('invalid'));
    }
    const end = await machine.attachPort('port', soon());
    assert.equal(end.destroyed, false);
    await assert.rejects(machine.attachPort('port', soon()), kind('alreadyExists'));
    await assert.rejects(machine.detachPort('none', soon()), kind('notFound'));
    await machine.detachPort('port', soon());
    await assert.rejects(machine.detachPort('port', soon()), kind('notFound'));
    end.destroy();
  });

  test('allows the maximum number of ports, and another after one is closed', async () => {
    const ends = new Map<string, Duplex>();
    for (let at = 0; at < maxPorts; at += 1) ends.set(`port-${at}`, await machine.attachPort(`port-${at}`, soon()));
    await assert.rejects(machine.attachPort('more', soon()), kind('exhausted'));
    const gone = once(ends.get('port-3') ?? assert.fail(), 'close', { signal: soon() });
    ends.get('port-3')?.resume(); // only a reader sees the end
    await machine.detachPort('port-3', soon());
    await gone;
    ends.set('more', await machine.attachPort('more', soon()));
    for (const [name, end] of ends) {
      if (name !== 'port-3') await machine.detachPort(name, soon());
      end.destroy();
    }
  });

  test('leaves a port unattached after a cancelled attach, and attaches it the next time', async () => {
    await assert.rejects(machine.attachPort('never', AbortSignal.abort()), kind('cancelled'));
    for (const turns of [1, 2, 3, 5, 8, 13]) {
      const stop = new AbortController();
      const attaching = machine.attachPort('again', stop.signal);
      attaching.catch(() => undefined);
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      stop.abort();
      const early = await attaching.catch((error: unknown) => void kind('cancelled')(error));
      const end = early ?? (await machine.attachPort('again', soon()));
      await machine.detachPort('again', soon());
      end.destroy();
    }
  });

  test('opens its channel; a second call ends the first', async () => {
    const first = await machine.connect(soon());
    const firstEnded = once(first, 'close', { signal: soon() });
    const second = await machine.connect(soon());
    await firstEnded;
    assert.equal(second.destroyed, false);
    assert.ok(second.writable && second.readable);
    const secondEnded = once(second, 'close', { signal: soon() });
    second.destroy();
    await secondEnded;
    const third = await machine.connect(soon());
    assert.equal(third.destroyed, false);
    assert.equal(machine.state, 'running');
  });

  test('opens no channel for a cancelled caller, and opens one for the next', async () => {
    await assert.rejects(machine.connect(AbortSignal.abort()), kind('cancelled'));
    assert.equal((await machine.connect(soon())).destroyed, false);
  });

  test('ends its channel when it ends', async () => {
    const channel = await machine.connect(soon());
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    channel.once('close', resolve); // after an error if the VMM had not read everything
    await machine.kill();
    await closed;
  });

  test('refuses all operations once it is gone', async () => {
    await assert.rejects(machine.connect(soon()), kind('unavailable'));
    await assert.rejects(machine.attachDisk({ ...disk, serial: 'late' }, soon()), kind('unavailable'));
    await assert.rejects(machine.detachDisk('one', soon()), kind('unavailable'));
    await assert.rejects(machine.attachPort('late', soon()), kind('unavailable'));
    await assert.rejects(machine.detachPort('late', soon()), kind('unavailable'));
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
