import type { Accelerator } from '../../driver.ts';

/**
 * Flags that each level of x86-64 adds, by the kernel's names (/proc/cpuinfo). Source: the x86-64 psABI,
 * "Microarchitecture levels"; `abm` is LZCNT, `pni` SSE3.
 */
const levels: readonly (readonly string[])[] = [
  [],
  ['cx16', 'lahf_lm', 'popcnt', 'pni', 'sse4_1', 'sse4_2', 'ssse3'],
  ['avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe', 'xsave'],
  ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'],
];

/** Returns the n of x86-64-vN, 1 to 4, for the processor flags in `text`, the content of /proc/cpuinfo. */
export function levelOfFlags(text: string): number {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(text)?.[1]?.split(' '));
  const missing = levels.findIndex((words) => !words.every((word) => flags.has(word)));
  return missing === -1 ? levels.length : missing;
}

/**
 * Returns the processor level that guests see. With KVM it is the host's own, read from `hostCpuInfo` (/proc/cpuinfo).
 * Under emulation it is that of QEMU's `max`: v3 since version 7.2, which added AVX2; no version has AVX-512 (QEMU's
 * change log).
 */
export function guestLevel(accelerator: Accelerator, qemuVersion: string, hostCpuInfo: string): number {
  if (accelerator === 'kvm') return levelOfFlags(hostCpuInfo);
  const [, major = '0', minor = '0'] = /^(?:\d+:)?(\d+)\.(\d+)/.exec(qemuVersion) ?? [];
  return Number(major) > 7 || (Number(major) === 7 && Number(minor) >= 2) ? 3 : 2;
}
