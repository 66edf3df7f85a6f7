import assert from 'node:assert/strict';
import { test } from 'node:test';
import { roomTable, type Usage, usageTable } from './top-command.ts';

const usage = (name: string, atMs: number, cpuUsec: number, mebibytes: number): Usage => ({
  name,
  atMs,
  cpuUsec,
  memoryBytes: mebibytes * 2 ** 20,
  memoryLimitBytes: name === 'default/b' ? 2 ** 27 : undefined,
  threads: 3,
  vmmBytes: 2 ** 25,
});

test('usageTable() divides processor time by the time between two samples, and sorts', () => {
  const before = [usage('default/a', 0, 1000, 1), usage('default/b', 0, 0, 1), usage('default/again', 0, 9, 1)];
  const now = [
    usage('default/a', 2000, 501_000, 4),
    usage('default/b', 2000, 3_000_000, 2),
    usage('default/again', 2000, 5, 1),
    usage('default/new', 2000, 5, 1),
  ];
  assert.equal(
    usageTable(before, now, 'cpu'),
    [
      'POD         CPU %   MEMORY   LIMIT     THREADS   MACHINE',
      'default/b   150.0   2.0Mi    128.0Mi   3         32.0Mi',
      'default/a   25.0    4.0Mi    -         3         32.0Mi',
      '',
    ].join('\n'),
  );
  const names = (sort: 'memory' | 'name') => [...usageTable(before, now, sort).matchAll(/default\/\w+/g)].map(String);
  assert.deepEqual(names('memory'), ['default/a', 'default/b']);
  assert.deepEqual(names('name'), ['default/a', 'default/b']);
});

test('roomTable() has what the node promised, and what is left of it', () => {
  const mib = 2 ** 20;
  const memory = { totalBytes: 8192 * mib, availableBytes: 4096 * mib, reserveBytes: 96 * mib, limitsBytes: 320 * mib };
  const cpu = { totalMillis: 2000, requestsMillis: 750, limitsMillis: 1500, unlimitedPods: 0 };
  assert.equal(
    roomTable({ waitingMachines: 1, memory: { ...memory, unlimitedPods: 2 }, cpu }),
    [
      'NODE     TOTAL      REQUESTS   LIMITS OF PODS          ROOM',
      'memory   8192.0Mi   -          320.0Mi and 2 without   4000.0Mi',
      'cpu      2.00       0.75       1.50                    1.25',
      '',
    ].join('\n'),
  );
  assert.equal(roomTable({ waitingMachines: 1 }), undefined);
});
