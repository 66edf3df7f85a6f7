import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { after, before, test } from 'node:test';
import { type Machine, type MachineSpec, maxPorts } from '../driver.ts';
import { assertNothingLeft, type Harness, kind, soon } from './driver-harness.ts';

/** Disks, ports and channel. Uses one machine for all tests, which run in order. */
export function describeRunning(harness: Harness): void {
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

  test('empties a disk, also one that is empty, and refuses to empty one that is not attached', async () => {
    await harness().makeDiskFile(spec, 'emptied.img');
    const emptied = { serial: 'emptied', file: 'emptied.img', readOnly: true };
    await machine.attachDisk(emptied, soon());
    await machine.emptyDisk('emptied', soon());
    await machine.emptyDisk('emptied', soon());
    await assert.rejects(machine.emptyDisk('three', soon()), kind('notFound'));
    await assert.rejects(machine.attachDisk(emptied, soon()), kind('alreadyExists'));
    await machine.detachDisk('emptied', soon());
    await machine.attachDisk(emptied, soon());
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
    await assert.rejects(machine.emptyDisk('one', soon()), kind('unavailable'));
    await assert.rejects(machine.attachPort('late', soon()), kind('unavailable'));
    await assert.rejects(machine.detachPort('late', soon()), kind('unavailable'));
    await assert.rejects(machine.setStartWeight(true), kind('unavailable'));
  });
}
