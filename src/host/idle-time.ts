import { ticksPerSecond } from './process/process-stat.ts';

/**
 * Time that all cores of the node together have idled or waited for disks since it booted, in `ms`, given the content of
 * /proc/stat (proc_stat(5)).
 */
export function idleMsOf(stat: string): number {
  const [, idle = 0, waiting = 0] = /^cpu +\d+ \d+ \d+ (\d+) (\d+)/.exec(stat)?.map(Number) ?? [];
  return ((idle + waiting) * 1000) / ticksPerSecond;
}
