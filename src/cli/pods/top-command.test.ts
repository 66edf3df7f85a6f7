import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Client } from '../client.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { roomTable, tableOf, type TopOptions, topCommand, type Usage, usedBetween } from './top-command.ts';

const usage = (name: string, atMs: number, cpuUsec: number, mebibytes: number): Usage => ({
  name,
  atMs,
  cpuUsec,
  memoryBytes: mebibytes * 2 ** 20,
  memoryRequestBytes: name === 'default/b' ? 2 ** 26 : undefined,
  memoryLimitBytes: name === 'default/b' ? 2 ** 27 : undefined,
  privateBytes: 2 ** 24,
  threads: 3,
  vmmBytes: 2 ** 25,
});

test('usedBetween() divides processor time by the time between two samples, and sorts', () => {
  const before = [usage('default/a', 0, 1000, 1), usage('default/b', 0, 0, 1), usage('default/again', 0, 9, 1)];
  const now = [
    usage('default/a', 2000, 501_000, 4),
    usage('default/b', 2000, 3_000_000, 2),
    usage('default/again', 2000, 5, 1),
    usage('default/new', 2000, 5, 1),
  ];
  assert.equal(
    tableOf(usedBetween(before, now, 'cpu')),
    [
      'POD         CPU %   MEMORY   REQUEST   LIMIT     MACHINE   OVERHEAD',
      'default/b   150.0   2.0Mi    64.0Mi    128.0Mi   16.0Mi    14.0Mi',
      'default/a   25.0    4.0Mi    -         -         16.0Mi    12.0Mi',
      '',
    ].join('\n'),
  );
  const names = (sort: 'memory' | 'name') => usedBetween(before, now, sort).map(({ name }) => name);
  assert.deepEqual(names('memory'), ['default/a', 'default/b']);
  assert.deepEqual(names('name'), ['default/a', 'default/b']);
});

test('roomTable() has what the node promised, and what is left of it', () => {
  const mib = 2 ** 20;
  const memory = {
    ...{ totalBytes: 8192 * mib, availableBytes: 4096 * mib, reserveBytes: 96 * mib },
    ...{ requestsBytes: 160 * mib, limitsBytes: 320 * mib, usedBytes: 90 * mib },
  };
  const cpu = { totalMillis: 2000, requestsMillis: 750, limitsMillis: 1500, unlimitedPods: 0 };
  assert.equal(
    roomTable({ waitingMachines: 1, memory: { ...memory, unlimitedPods: 2 }, cpu }),
    [
      'NODE     TOTAL      REQUESTS   LIMITS OF PODS          MACHINES   ROOM',
      'memory   8192.0Mi   160.0Mi    320.0Mi and 2 without   90.0Mi     4000.0Mi',
      'cpu      2.00       0.75       1.50                    -          1.25',
      '',
    ].join('\n'),
  );
  assert.equal(roomTable({ waitingMachines: 1 }), undefined);
});

test('top chooses pods by labels and namespace, and prints their figures as JSON', async () => {
  const summary = (namespace: string, name: string, app: string) => ({
    ...{ namespace, name, phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
    labels: { app },
  });
  const all = [summary('default', 'a', 'web'), summary('far', 'b', 'web'), summary('default', 'node', 'db')];
  const stats = {
    ...{ agentRssKiB: 0, agentFds: 0, vmmPssKiB: 1024, memoryBytes: 5, rssBytes: 0, cpuUsec: 0, pids: 2 },
  };
  const sandbox = {
    ...{ id: 's', state: 'ready', phases: [], volumes: [], mounts: [], logs: {} },
    parts: { key: '', qemu: '', kernel: '', crun: '', agent: '' },
    stats: { ...stats, containers: [], interfaces: [] },
  };
  const client = {
    get: async (path: string, schema: v.GenericSchema) =>
      v.parse(
        schema,
        path === '/v1/pods'
          ? all
          : { ...all.find(({ name }) => path.endsWith(`/${name}`)), uid: 'u', containers: [], events: [], sandbox },
      ),
  } as unknown as Client; // SAFE: the only call of the command
  const top = async (options: Partial<TopOptions>, ...words: readonly string[]) => {
    let stdout = '';
    const stream = new PassThrough().on('data', (text: Buffer) => (stdout += text.toString()));
    const terminal = { stdout: stream } as unknown as Terminal; // SAFE: all that it uses
    const ends = { any: new AbortController().signal } as unknown as EndSignals; // SAFE: the same
    await topCommand(client, words, { stream: true, sort: 'name', output: 'json', ...options }, terminal, ends);
    return (JSON.parse(stdout) as { readonly pod: string }[]).map(({ pod, ...figures }) => [pod, figures]);
  };
  const figures = { cpuPercent: 0, memoryBytes: 5, threads: 2, machineBytes: 2 ** 20 };
  assert.deepEqual(await top({ selector: 'app=web' }), [
    ['default/a', figures],
    ['far/b', figures],
  ]);
  assert.deepEqual(await top({ selector: 'app=web', namespace: 'far' }), [['far/b', figures]]);
  assert.deepEqual(await top({ namespace: 'far' }, 'pods'), [['far/b', figures]]);
  assert.deepEqual(await top({}, 'node'), [['default/node', figures]], 'a pod of that name');
  const two = [
    ['default/a', figures],
    ['default/node', figures],
  ];
  assert.deepEqual(await top({}, 'a', 'node', 'a'), two);
  assert.deepEqual(await top({}, 'pod', 'a', 'node'), two, "kubectl's words");
});
