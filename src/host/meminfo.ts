/** Reads a line of /proc/meminfo, in bytes (proc(5)). Returns undefined if there is no line of that name. */
export function memoryOf(meminfo: string, name: 'MemTotal' | 'MemAvailable'): number | undefined {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}
