import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guestLevel, levelOfFlags } from './processor-level.ts';

const v2 = 'fpu sse2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3';
const v3 = `${v2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`;
const v4 = `${v3} avx512f avx512bw avx512cd avx512dq avx512vl`;
const cpuInfo = (flags: string) => `processor\t: 0\nflags\t\t: ${flags}\nvmx flags\t: avx512f\nbugs\t\t: none\n`;

test('levelOfFlags() returns the highest level whose flags, and those of all lower levels, are present', () => {
  for (const [flags, level] of [
    ['fpu sse2', 1],
    [v2, 2],
    [v2.replace(' popcnt', ''), 1],
    [v3, 3],
    [v3.replace(' abm', ''), 2],
    [v4.replace(' avx512vl', ''), 3],
    [v4.replace(' ssse3', ''), 1],
    [v4, 4],
  ] as const) {
    assert.equal(levelOfFlags(cpuInfo(flags)), level, flags);
  }
  assert.equal(levelOfFlags(''), 1);
});

test("guestLevel() is the host's level with KVM, and QEMU's level under emulation", () => {
  assert.equal(guestLevel('kvm', '1:10.0.2', cpuInfo(v4)), 4);
  assert.equal(guestLevel('kvm', '1:10.0.2', cpuInfo('')), 1);
  for (const [version, level] of [
    ['1:10.0.2+ds-2+deb13u1', 3],
    ['1:7.2+dfsg-7', 3],
    ['1:7.1+dfsg-2', 2],
    ['1:5.2+dfsg-11', 2],
    ['unknown', 2],
  ] as const) {
    assert.equal(guestLevel('tcg', version, cpuInfo(v4)), level, version);
  }
});
