import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentPortName } from '../driver.ts';
import { kernelArguments, qemuArguments, qemuSwitches, type CommandLineInput } from './command-line.ts';
import { inside } from './jail/jail.ts';

const input: CommandLineInput = {
  id: 'm-1',
  accelerator: 'tcg',
  memoryMiB: 256,
  vcpus: 2,
  paths: inside,
  start: { kind: 'boot', kernelArguments: ['quiet', 'panic=-1'] },
  tap: { name: 'tap0', mac: '02:00:00:00:00:01' },
};
const valuesOf = (args: readonly string[], name: string) =>
  args.flatMap((arg, at) => (args[at - 1] === name ? [arg] : []));

test('qemuArguments() doubles commas in option values, and leaves plain values unchanged', () => {
  const paths = { ...inside, sockets: '/a,b', memory: '/m,x' };
  const start = { kind: 'freeze', kernelArguments: ['x=1,2'] } as const;
  const args = qemuArguments({ ...input, paths, start, tap: { name: 'tap0,script=/bin/sh', mac: 'm' } });
  assert.ok(valuesOf(args, '-chardev').every((value) => value.includes('path=/a,,b/')));
  assert.match(valuesOf(args, '-object')[0] ?? '', /mem-path=\/m,,x,/);
  assert.match(valuesOf(args, '-netdev')[0] ?? '', /ifname=tap0,,script=\/bin\/sh,script=no,/);
  assert.deepEqual(valuesOf(args, '-append'), ['x=1,2']);
});

test('qemuArguments() has no default devices, only our monitor, and enables the sandbox', () => {
  const args = qemuArguments(input);
  for (const flag of ['-nodefaults', '-no-user-config', '-no-reboot', '-S']) assert.ok(args.includes(flag), flag);
  assert.deepEqual(valuesOf(args, '-mon'), ['chardev=qmp,mode=control']);
  assert.deepEqual(valuesOf(args, '-display'), ['none']);
  const [sandbox = ''] = valuesOf(args, '-sandbox');
  for (const denied of ['obsolete', 'elevateprivileges', 'spawn', 'resourcecontrol']) {
    assert.ok(sandbox.includes(`${denied}=deny`), denied);
  }
});

test('qemuArguments() has no console socket without a console, but keeps the guest’s serial line', () => {
  const args = qemuArguments({ ...input, hasConsole: false });
  assert.deepEqual(valuesOf(args, '-serial'), ['null']);
  assert.ok(!valuesOf(args, '-chardev').some((value) => value.includes('console')));
});

test('qemuArguments() disables the legacy interrupt hardware, with which emulated boots die', () => {
  assert.match(valuesOf(qemuArguments(input), '-machine')[0] ?? '', /^microvm,pic=off,pit=off,rtc=on,acpi=on,/);
});

test('qemuArguments() excludes guest memory from merging and from core dumps', () => {
  assert.match(valuesOf(qemuArguments(input), '-machine')[0] ?? '', /,mem-merge=off,dump-guest-core=off$/);
});

test('qemuArguments() disables announcements of a NIC and their timer', () => {
  const args = qemuArguments(input);
  const nic = valuesOf(args, '-device').find((value) => value.startsWith('virtio-net-device'));
  assert.match(nic ?? '', /,guest_announce=off(,|$)/);
  assert.ok(valuesOf(args, '-global').includes('migration.announce-rounds=0'));
});

test('qemuArguments() gives a NIC only to a machine with a tap, and no scripts', () => {
  const isNic = (arg: string) => /virtio-net|^tap,/.test(arg);
  const { tap: _, ...without } = input;
  assert.equal(qemuArguments(without).some(isNic), false);
  const [netdev = ''] = valuesOf(qemuArguments(input), '-netdev');
  assert.match(netdev, /ifname=tap0,script=no,downscript=no,vnet_hdr=on/);
});

test('qemuArguments() disables fast string instructions on an emulated processor', () => {
  const processorOf = (accelerator: CommandLineInput['accelerator']) =>
    valuesOf(qemuArguments({ ...input, accelerator }), '-cpu');
  assert.deepEqual(processorOf('tcg'), ['max,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off']);
  assert.doesNotMatch(processorOf('kvm')[0] ?? '', /erms|fsrm/);
});

test('qemuArguments() gives a KVM guest a processor that can be frozen, without nested machines and counters', () => {
  const args = qemuArguments({ ...input, accelerator: 'kvm' });
  assert.deepEqual(valuesOf(args, '-cpu'), ['host,migratable=on,vmx=off,svm=off,pmu=off']);
  assert.ok(
    valuesOf(args, '-global').every((value) => !value.includes('ioeventfd')),
    'notifications wake QEMU',
  );
});

test('qemuSwitches() of a restored machine has the devices of the frozen one, in order', () => {
  const devices = (start: CommandLineInput['start']) =>
    qemuSwitches({ ...input, start }).filter(({ name }) =>
      ['device', 'chardev', 'netdev', 'smp', 'm', 'cpu'].includes(name),
    );
  assert.deepEqual(devices({ kind: 'restore' }), devices({ kind: 'freeze', kernelArguments: ['a'] }));
});

test('qemuArguments() of a restored machine maps the template privately and read-only, and boots no kernel', () => {
  const args = qemuArguments({ ...input, start: { kind: 'restore' } });
  const memory = valuesOf(args, '-object').find((value) => value.startsWith('memory-backend-file'));
  assert.match(memory ?? '', /mem-path=\/template\/memory,share=off,readonly=on,rom=off$/);
  assert.deepEqual(valuesOf(args, '-incoming'), ['defer']);
  for (const flag of ['-kernel', '-initrd', '-append']) assert.equal(args.includes(flag), false, flag);
});

test('qemuArguments() loads the plugin into an emulator that has one, with the size of its memory for translations', () => {
  const pluginOf = (more: Partial<CommandLineInput>) => valuesOf(qemuArguments({ ...input, ...more }), '-plugin');
  const [, mib] = /,tb-size=(\d+)$/.exec(valuesOf(qemuArguments(input), '-accel')[0] ?? '') ?? [];
  assert.deepEqual(pluginOf({ hasPlugin: true }), [`${inside.plugin},bytes=${Number(mib) * 1024 * 1024}`]);
  assert.deepEqual(pluginOf({ hasPlugin: false }), []);
  assert.deepEqual(pluginOf({ hasPlugin: true, accelerator: 'kvm' }), []);
});

test('qemuArguments() uses the agent port’s name that the guest expects', () => {
  assert.ok(valuesOf(qemuArguments(input), '-device').some((value) => value.endsWith(`name=${agentPortName}`)));
});

test('kernelArguments() bounds the tables that grow with the nominal memory', () => {
  for (const accelerator of ['kvm', 'tcg'] as const) {
    const words = kernelArguments({ accelerator, tscKHz: undefined });
    assert.ok(
      ['dhash_entries=32768', 'ihash_entries=16384'].every((word) => words.includes(word)),
      accelerator,
    );
  }
});

test('kernelArguments() turns interrupts of sent frames off in emulated guests only', () => {
  const word = 'virtio_net.napi_tx=0';
  assert.ok(kernelArguments({ accelerator: 'tcg', tscKHz: undefined }).includes(word));
  assert.ok(!kernelArguments({ accelerator: 'kvm', tscKHz: undefined }).includes(word));
});

test("kernelArguments() passes the clock's frequency to emulated guests only", () => {
  assert.ok(kernelArguments({ accelerator: 'tcg', tscKHz: 2_100_000 }).includes('tsc_early_khz=2100000'));
  for (const words of [
    kernelArguments({ accelerator: 'kvm', tscKHz: 2_100_000 }),
    kernelArguments({ accelerator: 'tcg', tscKHz: undefined }),
  ]) {
    assert.ok(words.every((word) => !word.startsWith('tsc_early_khz')));
  }
});
