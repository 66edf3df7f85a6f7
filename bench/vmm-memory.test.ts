import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { memoryOf } from './node.ts';
import { vmmMemoryOf } from './vmm-memory.ts';

/** A mapping as proc(5) shows it, with proportional and anonymous memory in `KiB`. */
const mapping = (header: string, pss: number, anonymous: number) =>
  `${header}\nSize: 9999 kB\nRss: 9999 kB\nPss: ${pss} kB\nPss_Dirty: 1 kB\nAnonymous: ${anonymous} kB\nVmFlags: rd wr\n`;

test('vmmMemoryOf() says what each mapping of a VMM is for', () => {
  const smaps = [
    mapping('55d0c0000000-55d0c0100000 r--p 00000000 fe:00 42   /usr/bin/qemu-system-x86_64', 3, 0),
    mapping('55d0c0100000-55d0c0200000 rw-p 00100000 fe:00 42   /usr/bin/qemu-system-x86_64', 40, 39),
    mapping('55d0c1000000-55d0c2000000 rw-p 00000000 00:00 0    [heap]', 500, 500),
    mapping('7f0000000000-7f0006000000 rwxp 00000000 00:00 0 ', 6000, 6000),
    mapping('7f0010000000-7f0310000000 rw-p 00000000 fe:00 77   /template/memory', 900, 800),
    mapping('7f0400000000-7f0400800000 rw-p 00000000 00:00 0 ', 20, 20),
    mapping('7f0500000000-7f0500001000 r-xp 00000000 00:00 0    [vdso]', 0, 0),
  ];
  assert.deepEqual(vmmMemoryOf(smaps.join('')), {
    translated: 6000,
    guest: 800,
    template: 100,
    heap: 520,
    programs: 43,
  });
});

test('vmmMemoryOf() leaves out no page of a process', async () => {
  const parts = vmmMemoryOf(await readFile('/proc/self/smaps', 'utf8'));
  const sum = Object.values(parts).reduce((all, part) => all + part, 0);
  const { pssKiB } = await memoryOf([process.pid]);
  assert.ok(Math.abs(sum - pssKiB) < pssKiB / 5, `${sum} of ${pssKiB} KiB`);
});
