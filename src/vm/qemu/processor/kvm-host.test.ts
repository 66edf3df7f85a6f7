import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { probeKey } from '../accelerator-probe.ts';
import { kvmIdentity, readKvmHost } from './kvm-host.ts';

const cpuInfo = `processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
microcode\t: 0x2b0000c0
cpu MHz\t\t: 2699.998
flags\t\t: fpu vmx constant_tsc nonstop_tsc
vmx flags\t: vnmi ept tsc_scaling
bugs\t\t: spectre_v1 spectre_v2
bogomips\t: 5399.99

processor\t: 1
flags\t\t: other
`;

async function openHost() {
  const root = await mkdtemp(join(tmpdir(), 'podvm-kvm-host-'));
  const places = {
    cpuInfo: join(root, 'cpuinfo'),
    modules: join(root, 'module'),
    clockSource: join(root, 'current_clocksource'),
    device: join(root, 'kvm'),
  };
  const load = async (module: string, parameters: Record<string, string>, mode = 0o444) => {
    const directory = join(places.modules, module, 'parameters');
    await mkdir(directory, { recursive: true });
    for (const [name, value] of Object.entries(parameters)) {
      await rm(join(directory, name), { force: true });
      await writeFile(join(directory, name), `${value}\n`);
      await chmod(join(directory, name), mode);
    }
  };
  await writeFile(places.cpuInfo, cpuInfo);
  await writeFile(places.clockSource, 'tsc\n');
  await writeFile(places.device, '');
  await load('kvm', { enable_pmu: 'Y' });
  await load('kvm', { halt_poll_ns: '200000' }, 0o644);
  await load('kvm_intel', { nested: 'Y' });
  await mkdir(join(places.modules, 'kvmfr'));
  return { places, load, read: () => readKvmHost(places), [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

test("readKvmHost() reads the first processor, the fixed settings of KVM's modules, clock and device", async () => {
  await using host = await openHost();
  const found = await host.read();
  assert.equal(found.processor.get('model name'), 'Intel(R) Xeon(R) Platinum 8481C');
  assert.ok(found.flags.has('vmx') && found.flags.has('tsc_scaling') && !found.flags.has('other'));
  assert.deepEqual(
    [...found.modules],
    [
      ['kvm', ['enable_pmu=Y']],
      ['kvm_intel', ['nested=Y']],
    ],
  );
  assert.deepEqual([found.tscKHz, found.clockSource, found.absent], [2_699_995, 'tsc', undefined]);
  await rm(host.places.device);
  assert.match((await host.read()).absent ?? '', /ENOENT/);
});

test('kvmIdentity() changes with everything that affects the guests’ processor, and not by a reboot', async () => {
  await using host = await openHost();
  const found = await host.read();
  const same = kvmIdentity(found);
  const withLine = (name: string, value: string) => ({
    ...found,
    processor: new Map(found.processor).set(name, value),
  });
  const others = {
    microcode: withLine('microcode', '0x2b000111'),
    flags: withLine('flags', 'fpu vmx'),
    'vmx flags': withLine('vmx flags', 'vnmi'),
    bugs: withLine('bugs', 'spectre_v1'),
    model: withLine('model name', 'another'),
    kernel: { ...found, kernel: { ...found.kernel, release: '6.12.1' } },
    build: { ...found, kernel: { ...found.kernel, version: '#2 SMP' } },
    tsc: { ...found, tscKHz: 2_600_000 },
    modules: { ...found, modules: new Map([['kvm', []]]) },
  };
  for (const [what, other] of Object.entries(others)) assert.notEqual(kvmIdentity(other), same, what);
  const identities = new Set(Object.values(others).map(kvmIdentity));
  assert.equal(identities.size, Object.keys(others).length, 'each differs from the others');

  assert.equal(kvmIdentity({ ...withLine('cpu MHz', '1200.0'), tscKHz: 2_700_020 }), same, 'measured at each boot');
  await host.load('kvm', { halt_poll_ns: '0' }, 0o644);
  assert.equal(kvmIdentity(await host.read()), same, 'tuned while it runs');
  await host.load('kvm_intel', { nested: 'N' });
  assert.notEqual(kvmIdentity(await host.read()), same, 'loaded with other settings');
});

test('probeKey() changes when KVM becomes accessible or is loaded with other settings, without a reboot', async () => {
  await using host = await openHost();
  const versions = { kernelVersion: '6.12', qemuVersion: '10.0' };
  const before = await probeKey(versions, await host.read());
  assert.equal(await probeKey(versions, await host.read()), before);
  await rm(host.places.device);
  const without = await probeKey(versions, await host.read());
  assert.notEqual(without, before);
  await writeFile(host.places.device, '');
  await host.load('kvm_intel', { nested: 'N' });
  assert.notEqual(await probeKey(versions, await host.read()), before);
});
