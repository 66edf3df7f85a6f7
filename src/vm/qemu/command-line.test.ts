import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentPortName } from '../driver.ts';
import { kernelArguments, qemuArguments, qemuSwitches, type CommandLineInput } from './command-line.ts';
import { inside } from './jail.ts';

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

test('qemuArguments() doubles commas in option values, and leaves whole values as they are', () => {
  const paths = { ...inside, sockets: '/a,b', memory: '/m,x' };
  const start = { kind: 'freeze', kernelArguments: ['x=1,2'] } as const;
  const args = qemuArguments({ ...input, paths, start, tap: { name: 'tap0,script=/bin/sh', mac: 'm' } });
  assert.ok(valuesOf(args, '-chardev').every((value) => value.includes('path=/a,,b/')));
  assert.match(valuesOf(args, '-object')[0] ?? '', /mem-path=\/m,,x,/);
  assert.match(valuesOf(args, '-netdev')[0] ?? '', /ifname=tap0,,script=\/bin\/sh,script=no,/);
  assert.deepEqual(valuesOf(args, '-append'), ['x=1,2']);
});

test('qemuArguments() opens no default devices, no monitor but ours, and shuts the sandbox', () => {
  const args = qemuArguments(input);
  for (const flag of ['-nodefaults', '-no-user-config', '-no-reboot', '-S']) assert.ok(args.includes(flag), flag);
  assert.deepEqual(valuesOf(args, '-mon'), ['chardev=qmp,mode=control']);
  assert.deepEqual(valuesOf(args, '-display'), ['none']);
  const [sandbox = ''] = valuesOf(args, '-sandbox');
  for (const denied of ['obsolete', 'elevateprivileges', 'spawn', 'resourcecontrol']) {
    assert.ok(sandbox.includes(`${denied}=deny`), denied);
  }
});

test('qemuArguments() leave the console’s socket out where there is no console, and the guest its serial line', () => {
  const args = qemuArguments({ ...input, hasConsole: false });
  assert.deepEqual(valuesOf(args, '-serial'), ['null']);
  assert.ok(!valuesOf(args, '-chardev').some((value) => value.includes('console')));
});

test('qemuArguments() keep the legacy interrupt hardware off, without which emulated boots die', () => {
  assert.match(valuesOf(qemuArguments(input), '-machine')[0] ?? '', /^microvm,pic=off,pit=off,rtc=on,acpi=on,/);
});

test('qemuArguments() keep memory of guests from being merged with others and from being dumped', () => {
  assert.match(valuesOf(qemuArguments(input), '-machine')[0] ?? '', /,mem-merge=off,dump-guest-core=off$/);
});

test('qemuArguments() announce nothing of a NIC, and leave its device no timer to lose', () => {
  const args = qemuArguments(input);
  const nic = valuesOf(args, '-device').find((value) => value.startsWith('virtio-net-device'));
  assert.match(nic ?? '', /,guest_announce=off(,|$)/);
  assert.ok(valuesOf(args, '-global').includes('migration.announce-rounds=0'));
});

test('qemuArguments() give a NIC only to a machine with a tap, and never a script', () => {
  const isNic = (arg: string) => /virtio-net|^tap,/.test(arg);
  const { tap: _, ...without } = input;
  assert.equal(qemuArguments(without).some(isNic), false);
  const [netdev = ''] = valuesOf(qemuArguments(input), '-netdev');
  assert.match(netdev, /ifname=tap0,script=no,downscript=no,vnet_hdr=on/);
});

test('qemuArguments() give an emulated processor no instructions for strings that are slow there', () => {
  const processorOf = (accelerator: CommandLineInput['accelerator']) =>
    valuesOf(qemuArguments({ ...input, accelerator }), '-cpu');
  assert.deepEqual(processorOf('tcg'), ['max,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off']);
  assert.deepEqual(processorOf('kvm'), ['host']);
});

test('qemuSwitches() of a restored machine have the devices of the frozen one, in order', () => {
  const devices = (start: CommandLineInput['start']) =>
    qemuSwitches({ ...input, start }).filter(({ name }) =>
      ['device', 'chardev', 'netdev', 'smp', 'm', 'cpu'].includes(name),
    );
  assert.deepEqual(devices({ kind: 'restore' }), devices({ kind: 'freeze', kernelArguments: ['a'] }));
});

test('qemuArguments() of a restored machine map the template privately and read-only, and boot nothing', () => {
  const args = qemuArguments({ ...input, start: { kind: 'restore' } });
  const memory = valuesOf(args, '-object').find((value) => value.startsWith('memory-backend-file'));
  assert.match(memory ?? '', /mem-path=\/template\/memory,share=off,readonly=on,rom=off$/);
  assert.deepEqual(valuesOf(args, '-incoming'), ['defer']);
  for (const flag of ['-kernel', '-initrd', '-append']) assert.equal(args.includes(flag), false, flag);
});

test('qemuArguments() name the agent port as the guest looks for it', () => {
  assert.ok(valuesOf(qemuArguments(input), '-device').some((value) => value.endsWith(`name=${agentPortName}`)));
});

test("kernelArguments() tell an emulated guest the clock's frequency, and only that one", () => {
  assert.ok(kernelArguments({ accelerator: 'tcg', tscKHz: 2_100_000 }).includes('tsc_early_khz=2100000'));
  for (const words of [
    kernelArguments({ accelerator: 'kvm', tscKHz: 2_100_000 }),
    kernelArguments({ accelerator: 'tcg', tscKHz: undefined }),
  ]) {
    assert.ok(words.every((word) => !word.startsWith('tsc_early_khz')));
  }
});
