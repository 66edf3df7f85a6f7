import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Accelerator } from '../driver.ts';
import { type BootOutcome, decide, probeDeadlines } from './accelerator-probe.ts';

const never = new AbortController().signal;

/** A host that answers each boot with the next outcome given for that accelerator. */
function host(outcomes: Readonly<Record<Accelerator, readonly BootOutcome[]>>) {
  const boots: { readonly accelerator: Accelerator; readonly deadlineMs: number }[] = [];
  const boot = async (accelerator: Accelerator, deadlineMs: number): Promise<BootOutcome> => {
    const times = boots.filter((earlier) => earlier.accelerator === accelerator).length;
    boots.push({ accelerator, deadlineMs });
    return outcomes[accelerator][times] ?? assert.fail(`booted ${accelerator} once too often`);
  };
  return { boot, boots };
}

const boots = (bootMs: number): BootOutcome => ({ outcome: 'works', bootMs });
const slow: BootOutcome = { outcome: 'slow', deadlineMs: probeDeadlines.kvmMs };
const dead: BootOutcome = { outcome: 'failed', detail: 'unknown MSR', fix: 'Update the host.' };

test('decide() chooses a KVM that boots in time, and tries nothing else', async () => {
  const { boot } = host({ kvm: [boots(400)], tcg: [] });
  assert.equal((await decide(boot, never)).accelerator, 'kvm');
});

test('decide() chooses emulation if KVM is absent, fails or runs no guest, and says which', async () => {
  const absent: BootOutcome = { outcome: 'absent', detail: 'no such file' };
  for (const [kvm, reason] of [
    [absent, /^no KVM \(no such file\)/],
    [dead, /^KVM opens but its guest died \(unknown MSR\)/],
    [slow, /^KVM answers but did not run a guest within 4000 ms/],
  ] as const) {
    const decision = await decide(host({ kvm: [kvm], tcg: [boots(3_000)] }).boot, never);
    assert.equal(decision.accelerator, 'tcg');
    assert.match(decision.reason, reason);
  }
});

test('decide() tries KVM again on a host so busy that emulation was slower than KVM’s deadline', async () => {
  const busy = host({ kvm: [slow, boots(9_000)], tcg: [boots(12_000)] });
  assert.equal((await decide(busy.boot, never)).accelerator, 'kvm');
  assert.equal(busy.boots.at(-1)?.deadlineMs, 12_000);
  const useless = host({ kvm: [slow, slow], tcg: [boots(12_000)] });
  assert.equal((await decide(useless.boot, never)).accelerator, 'tcg');
});

test('decide() fails if nothing boots, with a fix', async () => {
  const { boot } = host({ kvm: [slow], tcg: [dead] });
  await assert.rejects(decide(boot, never), {
    kind: 'failedPrecondition',
    message: /Cannot boot any machine here: emulation: unknown MSR; KVM answers but did not run a guest/,
    fix: 'Update the host.',
  });
});
