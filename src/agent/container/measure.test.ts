import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { metrics } from '#wire/figures.ts';
import { cgroupRoot, Cgroups } from './cgroups.ts';
import { measureCgroup, parseDevices, parseDisk, parsePressure, withDisk } from './measure.ts';

const absent = (what: string) => Object.assign(new Error(`no ${what}`), { code: 'ENOENT' });

/** Fake files of cgroups and sysfs; a path with something below it is a directory. */
function files(all: Readonly<Record<string, string>>) {
  const below = (path: string) => Object.keys(all).filter((each) => each.startsWith(`${path}/`));
  const refuse = () => {
    throw new Error('nothing is changed here');
  };
  return {
    readText: (path: string) => all[path] ?? assert.fail(absent(path)),
    readLink: (path: string) => all[path] ?? assert.fail(absent(path)),
    list: (path: string) => [...new Set(below(path).map((each) => each.slice(path.length + 1).split('/')[0] ?? ''))],
    status: (path: string) => {
      const kind = below(path).length > 0 ? ('directory' as const) : ('file' as const);
      return { kind, size: 0, mode: 0, uid: 0, gid: 0, inode: 1, device: 1, major: 0, minor: 0, modifiedMs: 0 };
    },
    writeExisting: refuse,
    makeDirectories: refuse,
    removeDirectory: refuse,
  };
}

test('measureCgroup() returns the kernel’s figures in a form that the host accepts', () => {
  const at = `${cgroupRoot}/pod/c`;
  const parts = files({
    [`${at}/memory.current`]: '100\n',
    [`${at}/memory.peak`]: '200\n',
    [`${at}/memory.max`]: '4096\n',
    [`${at}/memory.stat`]:
      'anon 10\nfile 20\nkernel 30\nfile_mapped 5\ninactive_file 4\nactive_file 3\npgfault 7\npgmajfault 2\n',
    [`${at}/memory.events`]: 'low 0\nmax 6\noom 1\noom_kill 1\n',
    [`${at}/cpu.stat`]:
      'usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 9\nnr_throttled 4\nthrottled_usec 50\n',
    [`${at}/pids.current`]: '3\n',
    [`${at}/pids.max`]: '64\n',
    [`${at}/io.stat`]: '8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n',
    ...Object.fromEntries(
      ['cpu', 'memory', 'io'].map((name) => [
        `${at}/${name}.pressure`,
        'some avg10=0.00 total=8\nfull avg10=0.00 total=7\n',
      ]),
    ),
    '/sys/dev/block/8:0': '../../devices/pci0000:00/host0/target0:0:0/0:0:0:0/block/sda',
  });
  const found = measureCgroup(parts, new Cgroups(parts), '/pod/c');
  assert.deepEqual(v.parse(metrics, found), found);
  assert.deepEqual([found.rssBytes, found.cacheBytes, found.kernelBytes, found.memoryLimitHits], [10, 20, 30, 6]);
  assert.deepEqual(
    [found.cpuUserUsec, found.cpuSystemUsec, found.cpuThrottledPeriods, found.pidsLimit],
    [10, 20, 4, 64],
  );
  assert.deepEqual(found.pressure?.io, { someUsec: 8, fullUsec: 7 });
  assert.equal(found.devices[0]?.name, 'sda');
});

test('measureCgroup() returns no figures for a removed cgroup, without an error', () => {
  const parts = files({});
  const found = measureCgroup(parts, new Cgroups(parts), '/pod/gone');
  assert.deepEqual(v.parse(metrics, found), found);
  assert.deepEqual([found.memoryBytes, found.devices, found.pressure, found.pidsLimit], [0, [], undefined, undefined]);
});

test('pidsBelow() also finds processes in cgroups made by a container, and stops at a limit', () => {
  const at = `${cgroupRoot}/pod/c`;
  const few = {
    [`${at}/cgroup.procs`]: '1\n2\n',
    [`${at}/cgroup.stat`]: 'nr_descendants 1\n',
    [`${at}/inner/cgroup.procs`]: '3\n',
    [`${at}/inner/cgroup.stat`]: 'nr_descendants 0\n',
  };
  assert.deepEqual(new Cgroups(files(few)).pidsBelow('/pod/c'), [1, 2, 3]);
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`${at}/n${n}/cgroup.procs`, `${n + 10}\n`]));
  assert.equal(new Cgroups(files({ ...few, ...many })).pidsBelow('/pod/c'), undefined);
  assert.deepEqual(new Cgroups(files({})).pidsBelow('/pod/gone'), []);
});

test('parseDevices() returns devices that were used and have a name', () => {
  const text =
    '8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16\n8:32 rbytes=9 wbytes=0 rios=1 wios=0\n253:0 cost=1\n';
  const names: Readonly<Record<string, string>> = { '8:0': 'sda', '8:16': 'sdb', '253:0': 'dm-0' };
  assert.deepEqual(
    parseDevices(text, (number) => names[number] ?? ''),
    [{ major: 8, minor: 0, name: 'sda', readBytes: 1, writtenBytes: 2, reads: 3, writes: 4, discardedBytes: 5 }],
  );
});

test('withDisk() adds the totals of the disk, if it still exists', () => {
  const [device] = parseDevices('8:0 rbytes=1 wbytes=2 rios=3 wios=4\n', () => 'sda');
  assert.ok(device);
  const text =
    '      17        1      130      543       24        6    30864      412        2      352      978        0\n';
  const disk = { mergedReads: 1, readMs: 543, mergedWrites: 6, writeMs: 412, inFlight: 2, busyMs: 352, queueMs: 978 };
  assert.deepEqual(withDisk(files({ '/sys/dev/block/8:0/stat': text }), device), { ...device, disk });
  assert.deepEqual(withDisk(files({}), device), device);
  assert.equal(parseDisk('1 2 3\n'), undefined);
});

test('parsePressure() omits what the kernel does not count', () => {
  assert.equal(parsePressure(''), undefined);
  assert.equal(parsePressure('some avg10=0.00 total=1\n'), undefined);
});

test('limit() writes the limits that it is given, and removes one that is `none`', () => {
  const written: string[] = [];
  const writeExisting = (path: string, text: string) => void written.push(`${path.slice(cgroupRoot.length)} ${text}`);
  const cgroups = new Cgroups({ ...files({}), writeExisting });
  cgroups.limit('/pod', { memoryLimitBytes: 4096, cpuQuotaUs: 5000 });
  cgroups.limit('/pod', { memoryLimitBytes: 'none', cpuQuotaUs: 'none' });
  assert.deepEqual(written, [
    '/pod/memory.max 4096',
    '/pod/cpu.max 5000 100000',
    '/pod/memory.max max',
    '/pod/cpu.max max 100000',
  ]);
});
