import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseProcessFigures, readProcessFigures, readThreadTimes, threadsByInnerIds } from './process-figures.ts';

const status = `Name:\tqemu
VmRSS:\t     888 kB
RssAnon:\t     180 kB
RssFile:\t     700 kB
RssShmem:\t       8 kB
VmSwap:\t       8 kB
Threads:\t4
`;
const io = `rchar: 1
wchar: 2
syscr: 3
syscw: 4
read_bytes: 4096
write_bytes: 8192
cancelled_write_bytes: 0
`;
const stat = `7 (a ) R (b) S 1 7 7 0 -1 4194560 111 5 22 6 300 45 7 8 20 0 1 0 99 1000 200\n`;

test('figures of a process are those in /proc, for any program name', () => {
  assert.deepEqual(parseProcessFigures(status, stat, io), {
    privateBytes: 188 * 1024,
    sharedBytes: 700 * 1024,
    swapBytes: 8 * 1024,
    minorFaults: 111,
    majorFaults: 22,
    cpuSeconds: 3.45,
    readBytes: 4096,
    writtenBytes: 8192,
  });
});

test('a running process has figures, and an ended one has none', async () => {
  const mine = readProcessFigures(process.pid);
  assert.ok(mine !== undefined && mine.privateBytes > 1_000_000 && mine.minorFaults > 100 && mine.cpuSeconds > 0);
  assert.equal(readProcessFigures(2 ** 22 + 1), undefined);
  const main = readThreadTimes(process.pid, [process.pid, 2 ** 22 + 1]);
  assert.ok(main.cpuSeconds > 0 && main.waitSeconds >= 0);
  assert.deepEqual(await threadsByInnerIds(process.pid, [process.pid, 1]), [process.pid]); // no namespace of its own
});
