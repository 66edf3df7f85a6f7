import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from '#host/log/log.ts';
import type { UpdateFinding } from '#setup/update-report.ts';
import { watchUpdates } from './watch-updates.ts';

test('watchUpdates() logs what is old, missing or unknown, soon and after a day', async () => {
  const lines: string[] = [];
  const log = createLog('info', (line) => lines.push(line.replace(/^\S+ /, '')));
  const reports: (() => readonly UpdateFinding[])[] = [
    () => [
      { subject: 'security archive', verdict: 'missing', detail: 'none', fix: 'Add one.' },
      { subject: 'QEMU', verdict: 'older', detail: 'qemu 1 -> 2', fix: 'Upgrade.' },
      { subject: 'crun', verdict: 'newest', detail: 'crun 1' },
      { subject: 'npm packages', verdict: 'unknown', detail: 'no registry' },
    ],
    () => {
      throw new Error('no such program');
    },
  ];
  const waits: { readonly ms: number; readonly end: () => void }[] = [];
  const turn = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const clock = {
    now: () => 0,
    monotonicMs: () => 0,
    after(ms: number, end: () => void) {
      waits.push({ ms, end });
      turn[waits.length - 1]?.resolve();
      return () => {};
    },
  };
  await using _watch = watchUpdates({ clock, log, check: async () => reports.shift()?.() ?? [] });
  await turn[0]?.promise;
  assert.deepEqual([waits[0]?.ms, lines], [60_000, []]);
  waits[0]?.end();
  await turn[1]?.promise;
  assert.deepEqual(lines, [
    'warn security updates are not configured of="security archive" what=none fix="Add one."\n',
    'warn older than the archives have of=QEMU what="qemu 1 -> 2" fix=Upgrade.\n',
    'warn updates could not be checked of="npm packages" what="no registry"\n',
    'info updates checked newest=crun\n',
  ]);
  assert.equal(waits[1]?.ms, 24 * 60 * 60_000);
  waits[1]?.end();
  await turn[2]?.promise;
  assert.equal(lines.at(-1), 'warn updates could not be checked why="no such program"\n');
});
