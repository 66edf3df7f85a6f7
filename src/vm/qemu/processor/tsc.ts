import { readFile } from 'node:fs/promises';

/** Returns the host's TSC frequency in `kHz`, or undefined where the host does not report it. */
export async function hostTscKHz(): Promise<number | undefined> {
  return tscKHzFrom(await readFile('/proc/cpuinfo', 'utf8'));
}

/**
 * `bogomips` is twice the TSC frequency in MHz on every x86 with a constant TSC: the kernel skips its delay loop and
 * computes loops per jiffy from `tsc_khz` (`lpj_fine`, arch/x86/kernel/tsc.c), and frequency scaling does not change
 * it. `cpu MHz` is the core's current frequency, used only when bogomips is absent or implausible.
 */
export function tscKHzFrom(cpuinfo: string): number | undefined {
  const bogomips = field(cpuinfo, 'bogomips');
  if (bogomips !== undefined && isPlausibleKHz(bogomips * 500)) return Math.round(bogomips * 500);
  const mhz = field(cpuinfo, 'cpu MHz');
  if (mhz !== undefined && isPlausibleKHz(mhz * 1000)) return Math.round(mhz * 1000);
  return undefined;
}

function field(cpuinfo: string, name: string): number | undefined {
  const match = new RegExp(`^${name}\\s*:\\s*([0-9.]+)$`, 'm').exec(cpuinfo);
  return match?.[1] === undefined ? undefined : Number(match[1]);
}

function isPlausibleKHz(kHz: number): boolean {
  return kHz >= 400_000 && kHz <= 10_000_000;
}
