import type { Accelerator } from '../driver.ts';

/**
 * What each level of x86-64 adds, in the kernel's words (/proc/cpuinfo). Source: the x86-64 psABI, "Microarchitecture
 * levels"; `abm` is LZCNT, `pni` SSE3.
 */
const levels: readonly (readonly string[])[] = [
  [],
  ['cx16', 'lahf_lm', 'popcnt', 'pni', 'sse4_1', 'sse4_2', 'ssse3'],
  ['avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe', 'xsave'],
  ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'],
];

/** The n of x86-64-vN that a processor with these flags has, 1 to 4. `text`: of /proc/cpuinfo. */
export function levelOfFlags(text: string): number {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(text)?.[1]?.split(' '));
  const missing = levels.findIndex((words) => !words.every((word) => flags.has(word)));
  return missing === -1 ? levels.length : missing;
}

/**
 * The level of the processor that machines show their guests: by KVM the host's own, which is handed through; emulated,
 * what QEMU's `max` is able to. Version 7.2 taught that AVX2 and with it all of v3; AVX-512 none can (QEMU's change
 * log). `hostCpuInfo`: /proc/cpuinfo.
 */
export function guestLevel(accelerator: Accelerator, qemuVersion: string, hostCpuInfo: string): number {
  if (accelerator === 'kvm') return levelOfFlags(hostCpuInfo);
  const [, major = '0', minor = '0'] = /^(?:\d+:)?(\d+)\.(\d+)/.exec(qemuVersion) ?? [];
  return Number(major) > 7 || (Number(major) === 7 && Number(minor) >= 2) ? 3 : 2;
}
