import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '#wire/limits.ts';
import type { FileStatus } from '#engine/engine.ts';
import { measureProcesses, softLimitsOf } from './processes.ts';

interface Process {
  readonly stat: string;
  /** Targets of its descriptors. */
  readonly fds: readonly string[];
  /** Whether it ends when it is listed. */
  readonly ends?: boolean;
}

function proc(processes: Readonly<Record<number, Process>>, limitsText = '') {
  const listed: number[] = [];
  const of = (path: string) => {
    const found = processes[Number(path.split('/')[2])];
    if (found === undefined) throw Object.assign(new Error('gone'), { code: 'ENOENT' });
    return found;
  };
  return {
    listed,
    parts: {
      readText: (path: string) => (path.endsWith('/stat') ? of(path).stat : limitsText),
      readLink: (path: string) => of(path).fds[Number(path.split('/')[4])] ?? '',
      status(path: string): FileStatus | undefined {
        const rest = { uid: 0, gid: 0, mode: 0o500, inode: 1, device: 1, major: 0, minor: 0, modifiedMs: 0 };
        const found = processes[Number(path.split('/')[2])];
        return found === undefined ? undefined : { kind: 'directory', size: found.fds.length, ...rest };
      },
      list(path: string) {
        const found = of(path);
        listed.push(Number(path.split('/')[2]));
        if (found.ends === true) throw Object.assign(new Error('gone'), { code: 'ESRCH' });
        return found.fds.map((_, at) => String(at));
      },
    },
  };
}

test('measureProcesses() counts states, descriptors and sockets for any command name', () => {
  const { parts } = proc({
    7: { stat: '7 (a) R (b)) S 1 7', fds: ['/dev/null', 'socket:[1]', 'pipe:[2]'] },
    8: { stat: '8 (x) R 1 8', fds: ['socket:[3]'] },
    9: { stat: '9 (y) T 1 9', fds: [] },
  });
  assert.deepEqual(measureProcesses(parts, [7, 8, 9]), {
    processes: 3,
    states: { running: 1, sleeping: 1, stopped: 1, uninterruptible: 0 },
    descriptors: 4,
    sockets: 2,
  });
});

test('measureProcesses() continues when a process ends during the measurement', () => {
  const { parts } = proc({
    7: { stat: '7 (a) S 1', fds: ['socket:[1]'], ends: true },
    9: { stat: '9 (b) S 1', fds: ['socket:[2]'] },
  });
  const found = measureProcesses(parts, [7, 8, 9]);
  assert.equal(found?.sockets, 1);
  assert.equal(found.states.sleeping, 2);
});

test('measureProcesses() omits a process with more descriptors than it may read, and does not estimate', () => {
  const fds = Array.from({ length: limits.maxCountedDescriptors + 1 }, () => 'socket:[1]');
  const { parts, listed } = proc({ 7: { stat: '7 (a) S 1', fds }, 8: { stat: '8 (b) S 1', fds: ['socket:[9]'] } });
  const found = measureProcesses(parts, [7, 8]);
  assert.equal(found?.descriptors, limits.maxCountedDescriptors + 2);
  assert.equal(found.sockets, undefined);
  assert.deepEqual(listed, []);
});

test('measureProcesses() reads up to its limit of processes, and none if there are more', () => {
  const pids = Array.from({ length: limits.maxCountedProcesses }, (_, at) => at + 1);
  assert.equal(measureProcesses(proc({}).parts, pids)?.processes, limits.maxCountedProcesses);
  assert.equal(measureProcesses(proc({}).parts, [...pids, 9999]), undefined);
  assert.equal(measureProcesses(proc({}).parts, undefined), undefined);
});

test('softLimitsOf() uses the kernel’s names, and omits unlimited resources', () => {
  const text = [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    'Max cpu time              unlimited            unlimited            seconds   ',
    'Max core file size        0                    unlimited            bytes     ',
    'Max open files            1024                 524288               files     ',
    'Max nice priority         0                    0                    ',
    'Max of something new      7                    7                    files     ',
  ].join('\n');
  assert.deepEqual(softLimitsOf(proc({}, text).parts, 7), [
    { name: 'max_core_file_size', soft: 0 },
    { name: 'max_open_files', soft: 1024 },
    { name: 'max_nice_priority', soft: 0 },
  ]);
});
