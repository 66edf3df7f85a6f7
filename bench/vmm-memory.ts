/**
 * What the memory of a machine's processes is for, in `KiB`: the sum is their proportional memory (PSS). Pages that
 * processes share, of files, count in parts.
 */
interface VmmMemory {
  /** Guest code as translated by an emulator. */
  readonly translated: number;
  /** Pages that the guest has changed since its template. */
  readonly guest: number;
  /** Pages of the template that the guest has read, and their neighbours, which the host maps with them. */
  readonly template: number;
  /** Heap, stacks and tables. */
  readonly heap: number;
  /** Programs and libraries; what is private of them are mostly relocated addresses. */
  readonly programs: number;
}

type Part = keyof VmmMemory;

/** Reads the text of `/proc/PID/smaps` (proc(5)), of several processes joined, of a machine that was restored. */
export function vmmMemoryOf(smaps: string): VmmMemory {
  const parts: Record<Part, number> = { translated: 0, guest: 0, template: 0, heap: 0, programs: 0 };
  for (const mapping of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const header = /^\S+ (\S+) \S+ \S+ \d+ *(.*)\n/.exec(mapping);
    if (header === null) continue;
    const [, rights = '', path = ''] = header;
    const [pss, anonymous] = [kibibytesOf(mapping, 'Pss'), kibibytesOf(mapping, 'Anonymous')];
    if (path === '/template/memory') {
      parts.guest += anonymous;
      parts.template += pss - anonymous;
    } else {
      parts[partOf(rights, path)] += pss;
    }
  }
  return parts;
}

function partOf(rights: string, path: string): Part {
  if (path.startsWith('/')) return 'programs';
  return rights.startsWith('rwx') ? 'translated' : 'heap';
}

const kibibytesOf = (mapping: string, name: string): number =>
  Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(mapping)?.[1] ?? 0);
