import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { buildRoot, builtProgram } from '../../test/built-program.ts';

/**
 * Tests of the real engine: `scenarios/`, compiled into a static binary and once more with address and
 * undefined-behaviour checks, run as an ordinary process (as root, for pid namespaces and file owners).
 */
const reason = !existsSync(join(buildRoot, 'usr/bin/gcc'))
  ? 'no compiler: run `podvm setup`'
  : process.getuid?.() !== 0
    ? 'needs root'
    : undefined;
const mayNotSkip = process.env['PODVM_REQUIRE_VM'] === '1';

const run = promisify(execFile);

/** Expected result of each scenario, or a check of it. */
const expected: Readonly<Record<string, unknown>> = {
  failedSpawns: {
    codes: {
      missing: 'ENOENT',
      directory: 'EACCES',
      emptyArgv: 'TypeError',
      nul: 'EINVAL',
      badFd: 'EBADF',
      badCwd: 'ENOENT',
      fraction: 'RangeError',
      hugeFd: 'RangeError',
      uidAlone: 'TypeError',
      noOptions: 'TypeError',
    },
    reaped: 0,
    leakedDescriptors: 0,
  },
  wrongArguments:
    'RangeError RangeError TypeError TypeError TypeError TypeError RangeError RangeError RangeError RangeError TypeError EINVAL EINVAL RangeError RangeError ENOENT EINVAL'.split(
      ' ',
    ),
  errorsSurvived: [
    'Error: exit',
    'Error: handler 1',
    'Error: handler 2',
    'Error: handler 3',
    'Error: rejection',
    'Error: timer',
  ],
  outOfMemory: { errors: ['InternalError: out of memory'], still: [2, 4] },
  watchdog: ['InternalError: interrupted'],
  slowHandler: { turns: 100_000, errors: [] },
  interruptedCall: { got: ['InternalError: interrupted', 'InternalError: interrupted'], errors: [] },
  deepRecursion: ['InternalError: stack overflow'],
  noEval: ['TypeError', 'TypeError'],
  streams: { text: 'GRüßE', code: 7 },
  manyChildren: { wrongCodes: 0, wrongTexts: 0, leakedDescriptors: 0 },
  orphans: { first: true, orphan: true, codes: [0, 0] },
  signals: { signal: 9, gone: 'ESRCH' },
  // 4 is the directory that `ls` reads
  descriptorsOfChild: '0 1 2 3 4 ',
  swappedDescriptors: ['one\n', 'two\n'],
  backPressure: { written: 262_144, read: 262_144, empty: -1, noReader: 'EPIPE' },
  fairness: { busyRan: true, between: true },
  staleEvents: { calls: 1, errors: [] },
  changes: { hungUp: [4], written: [1] },
  timers: { order: [0, 10, 20, 30], negative: 'RangeError', notANumber: 'RangeError' },
  files: {
    text: 'hellö',
    tooBig: 'EFBIG',
    kinds: ['file', 'symlink', 'characterDevice'],
    mode: 0o640,
    size: 6,
    names: ['file', 'link'],
    absent: true,
    noCreate: 'ENOENT',
    nul: 'EINVAL',
    notText: 'TypeError',
    removed: [],
    linkTargetLives: 'directory',
  },
  beneath: {
    relative: 'ENOENT',
    dots: 'ENOENT',
    absolute: 'ENOENT',
    magic: 'ENOENT',
    made: 0o711,
    outside: true,
    dangling: 'ENOENT',
    path: true,
  },
  watchedFile: {
    first: 1,
    ofLink: 2,
    quiet: -1,
    missing: 'ENOENT',
    wrong: 'EINVAL',
    onRead: -1,
    onWrite: { bytes: 16, number: 1, mask: 2, name: 0 }, // IN_MODIFY
    onClose: { bytes: 16, number: 1, mask: 8, name: 0 }, // IN_CLOSE_WRITE
  },
  receivesDescriptors: {
    none: -1,
    nothing: { bytes: -1, fds: [] },
    got: { bytes: 2, fds: [] },
    text: 'hi',
    end: { bytes: 0, fds: [] },
  },
  refusedConnection: { error: 'ECONNREFUSED', name: 'EINVAL', port: 'RangeError' },
  terminal: { text: '17 91\r\ntty\r\n', end: 'EIO' },
  text: {
    lossy: 'a\ufffdb\ufffd\u{1f600}',
    surrogate: [0x61, 0xef, 0xbf, 0xbd, 0x62],
    roundTrips: true,
    base64: 'cG9kdm0=',
    unpadded: 'podvm',
    refused: ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL'],
    slice: 'cde',
    outOfRange: 'RangeError',
  },
  capability: { given: 'has not', taken: 'has', unknown: 'RangeError' },
  sealedProgram: { text: 'sealed\nhere\n', write: 'EPERM' },
  pause: {
    name: 'podvm-pause',
    namespaces: ['pid', 'user', 'net', 'ipc', 'uts'],
    maps: ['0', '1000', '10'],
    ids: ['1000', '2000'],
    signal: 9,
  },
  entered: {
    good: {
      text: [
        '2 0',
        '1234',
        '2345 7 8',
        '0022',
        '99',
        '/usr',
        'a b',
        'CapEff:\t0000000000000001',
        'CapBnd:\t0000000000000021',
        'CapAmb:\t0000000000000001',
        'NoNewPrivs:\t1',
        'Seccomp:\t2',
        'in its cgroup',
        '',
      ],
      reports: [],
      code: 0,
      helper: 0,
    },
    terminal: '17 91\r\ntty\r\n',
    missing: ['!ENOENT executable file `podvm-no-such` not found in $PATH: No such file or directory'],
    noPath: ['!ENOENT executable file `sh` not found in $PATH: No such file or directory'],
    notExecutable: ['!EPERM the path `/etc/passwd` exists but it is not executable: Operation not permitted'],
    directory: ['!EPERM the path `/etc` is not a regular file: Operation not permitted'],
    noDirectory: ['!ENOENT chdir to `/podvm-none`: No such file or directory'],
    short: ['!EINVAL the plan of a process has too few words: Invalid argument'],
    gone: 'ESRCH',
  },
  asides: {
    mounted: 0,
    noType: 19, // ENODEV
    noModule: 2, // ENOENT
    answered: 0,
    refused: 95, // EOPNOTSUPP
    notWhole: 'EINVAL',
    tooLong: 'E2BIG',
    started: [true, true, true, true, false],
    again: 2,
  },
  badMaps: ['EINVAL', 'EINVAL', 'EINVAL'],
  users: { uid: 1000, gid: 2000, denied: 'EACCES', text: 'mine', proc: 'EINVAL', links: ['lo'], noProcess: 'ESRCH' },
};

for (const sanitize of [false, true]) {
  describe(
    `engine${sanitize ? ' with address and undefined-behaviour checks' : ''}`,
    {
      skip: mayNotSkip ? false : (reason ?? false),
    },
    () => {
      let directory = '';
      const seen = async (scenario: string): Promise<unknown> => {
        const own = await mkdtemp(join(directory, 'scenario-'));
        // standard error shows the findings of the checks
        const { stdout, stderr } = await run(join(directory, 'scenarios'), [scenario, own], { timeout: 60_000 });
        assert.equal(stderr, '');
        return JSON.parse(stdout);
      };

      before(async () => {
        directory = await mkdtemp(join(tmpdir(), 'podvm-engine-'));
        await builtProgram({
          repo: join(import.meta.dirname, '../..'),
          buildRoot,
          outFile: join(directory, 'scenarios'),
          entry: 'src/engine/testing/main.ts',
          calls: 'scenarios',
          sanitize,
          signal: AbortSignal.timeout(120_000),
        });
      });
      after(async () => await rm(directory, { recursive: true, force: true }));

      for (const [scenario, wanted] of Object.entries(expected)) {
        it(`${scenario}() has the expected result`, async () => assert.deepEqual(await seen(scenario), wanted));
      }

      it('steady() neither leaks descriptors nor grows, and stays within 4 MiB', async () => {
        const use = (await seen('steady')) as { residentKiB: number; heapGrowth: number; leakedDescriptors: number };
        assert.equal(use.leakedDescriptors, 0);
        assert.ok(use.heapGrowth < 4096, `heap grew by ${use.heapGrowth} bytes over 200 children`);
        if (!sanitize) assert.ok(use.residentKiB <= 4096, `${use.residentKiB} KiB resident`);
      });

      it('spawnTimes() has a shortest time of a few ms', async () => {
        const shortestMs = Number(await seen('spawnTimes')); // the others are those of the host's load
        assert.ok(shortestMs < 20, `${shortestMs} ms from spawn to exit`);
      });
    },
  );
}
