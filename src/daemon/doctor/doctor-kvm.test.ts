import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import type { BootOutcome } from '#vm/qemu/accelerator-probe.ts';
import type { KvmHost } from '#vm/qemu/processor/kvm-host.ts';
import { kvmFindings, openAsUser } from './doctor-kvm.ts';
import type { RestoreOutcome } from './restore-trial.ts';

const intel: KvmHost = {
  processor: new Map([
    ['model name', 'Intel(R) Xeon(R)'],
    ['microcode', '0x2b0000c0'],
  ]),
  flags: new Set(['vmx', 'tsc_scaling']),
  tscKHz: 2_699_995,
  kernel: { release: '6.12.0', version: '#1' },
  modules: new Map([
    ['kvm', []],
    ['kvm_intel', ['nested=Y']],
  ]),
  clockSource: 'tsc',
  absent: undefined,
};
const works: BootOutcome = { outcome: 'works', bootMs: 400 };
const restored: RestoreOutcome = {
  restoreMs: 80,
  frozen: { guestMs: 500, beforeMs: 0, afterMs: 1 },
  restored: [
    { guestMs: 560, beforeMs: 3_000, afterMs: 3_001 },
    { guestMs: 1_560, beforeMs: 4_000, afterMs: 4_001 },
  ],
};

/** Runs the checks on a made-up host. Returns `status: detail`, and the fix if there is one, by name of the check. */
async function check(
  host: Partial<KvmHost>,
  boot: BootOutcome | undefined = works,
  openAsVmm: () => Promise<string> = () => Promise.resolve('any user may open it'),
  restore: () => Promise<RestoreOutcome> = () => Promise.resolve(restored),
) {
  const trials = { openAsVmm, boot: () => Promise.resolve(boot), restore };
  const findings = await kvmFindings({ ...intel, ...host }, trials);
  for (const { name, status, fix } of findings) {
    assert.equal(fix !== undefined, status === 'warn' || status === 'fail', `${name} has a fix if it needs one`);
  }
  const of = (name: string) => {
    const found = findings.find((each) => each.name === name);
    return { said: `${found?.status}: ${found?.detail}`, fix: found?.fix ?? '' };
  };
  return { of, statuses: findings.map(({ status }) => status), names: findings.map(({ name }) => name) };
}

test('doctor finds no fault on a physical host with KVM, and lists checks in order of dependence', async () => {
  const { of, statuses, names } = await check({});
  assert.deepEqual(
    names.map((name) => name.replace('kvm ', '')),
    ['processor', 'modules', '/dev/kvm', 'user', 'boot', 'restore', 'nesting', 'clock', 'templates'],
  );
  assert.deepEqual(new Set(statuses), new Set(['ok']));
  assert.equal(of('kvm clock').said, "ok: the host's clock is tsc; TSC 2700 MHz, with scaling");
  assert.match(of('kvm templates').said, /kernel 6\.12\.0, microcode 0x2b0000c0/);
  assert.match((await check({ flags: new Set(['svm']) })).of('kvm clock').said, /without scaling$/);
});

test('doctor says how to enable virtualisation on each kind of host, and which module to load', async () => {
  const absent = "ENOENT: no such file or directory, open '/dev/kvm'";
  const physical = await check({ flags: new Set(), modules: new Map(), absent });
  assert.match(physical.of('kvm processor').fix, /firmware/);
  assert.match(physical.of('kvm modules').fix, /modprobe kvm_intel/);
  assert.match(physical.of('/dev/kvm').said, /^fail: ENOENT/);
  assert.deepEqual(
    ['kvm user', 'kvm boot', 'kvm restore'].map((name) => physical.of(name).said.slice(0, 4)),
    ['skip', 'skip', 'skip'],
  );
  const virtual = await check({ flags: new Set(['hypervisor']), modules: new Map([['kvm', []]]), absent });
  assert.match(virtual.of('kvm processor').fix, /nested virtualisation/);
  assert.match(virtual.of('kvm modules').said, /without that of the processor/);
  assert.match((await check({ flags: new Set(['svm']), modules: new Map() })).of('kvm modules').fix, /kvm_amd/);
});

test('doctor distinguishes a denied device from a missing one', async () => {
  const { of } = await check({ absent: 'EPERM: operation not permitted' });
  assert.match(of('/dev/kvm').said, /^fail: EPERM/);
  assert.match(of('/dev/kvm').fix, /--device \/dev\/kvm/);
  const closed = await check({}, works, () => Promise.reject(new Error('Permission denied')));
  assert.match(closed.of('kvm user').said, /^fail: .*Permission denied/);
  assert.match(closed.of('kvm user').fix, /nodev/);
  assert.match(closed.of('kvm boot').said, /^skip/);
});

test('doctor reports a KVM of another kind than the processor’s, and why no guest runs', async () => {
  const detail = "Cannot start machine probe-kvm: this host's KVM refuses a register of the processor that it offers";
  const fix = 'Set the accelerator to `tcg`.';
  const { of } = await check(
    {
      flags: new Set(['hypervisor']),
      modules: new Map([
        ['kvm', []],
        ['kvm_pvm', []],
      ]),
    },
    { outcome: 'failed', detail, fix },
  );
  assert.match(of('kvm processor').said, /^warn: .*neither vmx nor svm/);
  assert.match(of('kvm modules').said, /^warn: kvm, kvm_pvm: not the KVM of Intel or AMD/);
  assert.deepEqual(of('kvm boot'), { said: `fail: ${detail}`, fix });
  assert.match(of('kvm nesting').said, /^warn: .*nested/);
});

test('doctor treats a slow boot as a failure, and does not boot before set-up', async () => {
  assert.match((await check({}, { outcome: 'works', bootMs: 9_000 })).of('kvm boot').said, /^warn: .*9000 ms/);
  const slow = await check({}, { outcome: 'slow', deadlineMs: 45_000 });
  assert.match(slow.of('kvm boot').said, /^fail: KVM answers, but no guest program ran/);
  const trials = {
    openAsVmm: () => Promise.resolve(''),
    boot: () => Promise.resolve(undefined),
    restore: () => assert.fail('nothing has booted'),
  };
  const boot = (await kvmFindings(intel, trials)).find(({ name }) => name === 'kvm boot');
  assert.deepEqual([boot?.status, boot?.fix], ['fail', 'Run `podvm setup`.']);
});

test('doctor restores a guest, and says why that fails', async () => {
  const after = (outcome: () => Promise<RestoreOutcome>) => check({}, works, undefined, outcome);
  assert.match((await check({})).of('kvm restore').said, /^ok: a restored guest answers after 80 ms/);
  const refused = await after(() => Promise.reject(new Error('QEMU: failed to set MSR 0x49')));
  assert.equal(refused.of('kvm restore').said, 'fail: QEMU: failed to set MSR 0x49');
  assert.match(refused.of('kvm restore').fix, /`template` to `off`/);
});

test('doctor finds a restored clock that jumps, or runs at another speed than the host', async () => {
  const [first, second] = restored.restored;
  const said = async (changes: Partial<RestoreOutcome>) => {
    const { of } = await check({}, works, undefined, () => Promise.resolve({ ...restored, ...changes }));
    return of('kvm restore').said;
  };
  const later = (guestMs: number) => [first, { ...second, guestMs }] as const;
  assert.match(await said({ restored: later(1_561) }), /^ok/);
  assert.match(await said({ restored: later(1_900) }), /^fail: .*it ran 1340 ms while 999 to 1001 ms passed/);
  assert.match(await said({ restored: later(first.guestMs) }), /^fail: .*it ran 0 ms/);
  assert.match(await said({ frozen: { ...restored.frozen, guestMs: 700 } }), /^fail: .*it went back by 140 ms/);
  const hoursLater = [first, second].map((read) => ({ ...read, guestMs: read.guestMs + 7_200_000 }));
  const [one = first, other = second] = hoursLater;
  assert.match(await said({ restored: [one, other] }), /^fail: .*it went forward by 7200060 ms/);
  const slowly = [first, { ...second, beforeMs: 30_000, afterMs: 30_500, guestMs: first.guestMs + 27_100 }] as const;
  assert.match(await said({ restored: slowly }), /^ok/, 'an answer of a busy host comes late');
});

test('doctor warns of a host whose clock guests cannot read directly', async () => {
  for (const clockSource of ['kvm-clock', 'hpet', undefined]) {
    assert.match((await check({ clockSource })).of('kvm clock').said, /^warn: .*not the TSC/);
  }
  assert.match((await check({ clockSource: 'hyperv_clocksource_tsc_page' })).of('kvm clock').said, /^ok/);
});

const skip = process.getuid?.() === 0 ? false : 'making device nodes needs root';

test("openAsUser() opens the host's node or one of its own as that user, and leaves nothing", { skip }, async () => {
  const directory = await mkdtemp('/var/tmp/podvm-doctor-kvm-');
  try {
    await chmod(directory, 0o711);
    const signal = AbortSignal.timeout(60_000);
    const device = { path: join(directory, 'host-null'), major: 1, minor: 3 }; // in the place of /dev/kvm
    await run('mknod', ['-m', '0600', device.path, 'c', '1', '3']);
    assert.match(await openAsUser(device, directory, 64_321, signal), /^each machine gets a node of its own/);
    await chmod(device.path, 0o666);
    assert.match(await openAsUser(device, directory, 64_321, signal), /^any user may open/);
    assert.deepEqual(await readdir(directory), ['host-null']);
    await chmod(directory, 0o700);
    await assert.rejects(openAsUser(device, directory, 64_321, signal), /Permission denied|Cannot open/i);
  } finally {
    await rm(directory, { recursive: true });
  }
});
