import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describePodParts, findingOf } from './doctor-updates.ts';

const newest = { key: 'k2', qemu: '1:10.0.13', kernel: '6.12.118', crun: '1.21', agent: 'a2' };

test('doctor lists the pods that run on older parts, and those parts', () => {
  const pods = [
    { namespace: 'default', name: 'new', parts: newest },
    { namespace: 'default', name: 'old', parts: { ...newest, key: 'k1', qemu: '1:10.0.9', kernel: '6.12.57' } },
    { namespace: 'default', name: 'libraries', parts: { ...newest, key: 'k0' } },
    { namespace: 'default', name: 'unknown', parts: undefined },
  ];
  const findings = describePodParts(pods, newest);
  assert.ok(findings.every(({ status, fix }) => status === 'warn' && fix !== undefined));
  assert.deepEqual(
    findings.map(({ detail }) => detail),
    [
      'default/old runs on older ones: qemu 1:10.0.9, now 1:10.0.13; kernel 6.12.57, now 6.12.118',
      'default/libraries runs on older ones: the same versions of QEMU, kernel, crun and agent, with other libraries',
      'default/unknown runs on older ones: an older podvm made it, which recorded no versions',
    ],
  );
  assert.deepEqual(describePodParts(pods.slice(0, 1), newest), [
    { name: 'parts of pods', status: 'ok', detail: 'every pod runs on those of set-up' },
  ]);
});

test('doctor reports failed checks as warnings, never as ok', () => {
  const verdicts = ['newest', 'older', 'missing', 'unknown'] as const;
  const statuses = verdicts.map((verdict) => findingOf({ subject: 'QEMU', verdict, detail: '' }).status);
  assert.deepEqual(statuses, ['ok', 'warn', 'warn', 'warn']);
});
