/** A line of /proc/meminfo, in bytes (proc(5)); undefined if the kernel has none of that name. */
export function memoryOf(meminfo: string, name: 'MemTotal' | 'MemAvailable'): number | undefined {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}
