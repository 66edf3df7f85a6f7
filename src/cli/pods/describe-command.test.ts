import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import type { PodDescription } from '#api/description.ts';
import { troublesOf } from '#api/finding.ts';
import { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { failureCode } from '../exit-codes.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { describeCommand, descriptionText } from './describe-command.ts';

const mib = 1024 * 1024;
const described: PodDescription = {
  namespace: 'default',
  name: 'web',
  madeBy: 'podvm',
  phase: 'Failed',
  reason: 'SandboxFailed',
  createdAt: '2026-01-01T00:00:00.000Z',
  addresses: ['10.88.0.5'],
  machine: {
    id: 'abc',
    state: 'failed',
    accelerator: 'kvm',
    pid: 7,
    failure: "the guest panicked; the guest's last lines: Kernel panic",
    parts: { qemu: '10.0', kernel: '6.12' },
    timeline: [
      { name: 'network connected', ms: 1500, medianMs: 40, isSlow: true },
      { name: 'total', ms: 1700, medianMs: 900, isSlow: false },
    ],
    limits: { memoryLimitBytes: 64 * mib },
    use: { memoryBytes: 10 * mib, cpuSeconds: 1.5, threads: 3 },
    cost: {
      guestMemoryBytes: 512 * mib,
      privateBytes: 60 * mib,
      sharedBytes: 90 * mib,
      cpuSeconds: 2,
      waitSeconds: 0.25,
    },
    warnings: [],
    jailWeaknesses: [],
    volumes: [],
  },
  containers: [
    {
      name: 'main',
      image: 'nginx',
      state: 'terminated',
      reason: 'OOMKilled',
      message: 'too large',
      exitCode: 137,
      restartCount: 2,
      limits: { memoryLimitBytes: 64 * mib, cpuLimitMillis: 500 },
      use: { memoryBytes: 9 * mib, cpuSeconds: 1.4, threads: 2, oomKills: 1 },
      mounts: [{ mountPath: '/data', mode: 'share' }],
      logPath: '/var/log/main.log',
    },
  ],
  events: [
    {
      at: '2026-01-01T00:00:30.000Z',
      type: 'Warning',
      reason: 'SandboxFailed',
      message: 'the guest panicked',
      fix: 'See the console.',
    },
  ],
  console: ['Kernel panic'],
};

test('a description starts with failures and slow steps, followed by its sections', () => {
  const text = descriptionText(described, Date.parse('2026-01-01T00:01:00.000Z'));
  assert.equal(
    text,
    `Pod:        default/web
State:      Failed (SandboxFailed)
Failure:    the guest panicked; the guest's last lines: Kernel panic
Age:        60s
Made by:    podvm
Addresses:  10.88.0.5
Slow:       network connected: 1.5 s instead of 40 ms

Containers:
  NAME   STATE                                  RESTARTS   AGE   IMAGE
  main   terminated, OOMKilled, exit code 137   2          -     nginx
  main: too large

Events:
  30s  ! SandboxFailed: the guest panicked
         fix: See the console.

Memory and processor:
  WHAT        MEMORY     REQUEST   LIMIT       CPU TIME   CPU LIMIT   THREADS
  main        9.0 MiB    none      64.0 MiB    1.4 s      0.5 cores   2
  (pod)       10.0 MiB   none      64.0 MiB    1.5 s      none        3
  (machine)   60.0 MiB   -         512.0 MiB   2.0 s      -           -
  The machine takes 50.0 MiB and 0.5 s of processor time beyond the pod; 90.0 MiB are shared with other machines. Its processors waited 0.3 s for the node's.

Start:
  STEP                TIME    MEDIAN OF THE NODE
  network connected   1.5 s   40 ms                slow
  total               1.7 s   900 ms

Mounts:
  CONTAINER   PATH    MODE
  main        /data   share

Machine:
  id:         abc
  state:      failed
  runs by:    kvm
  pid:        7
  jail:       complete
  versions:   qemu 10.0, kernel 6.12
  log main:   /var/log/main.log

Last lines of the console:
  Kernel panic
`,
  );
});

test('a pod without a machine is described by its events', () => {
  const { machine: _, reason: _reason, ...waiting } = described;
  const pod: PodDescription = { ...waiting, phase: 'Pending', containers: [], addresses: [], console: [] };
  const text = descriptionText(pod, Date.parse('2026-01-01T00:01:00.000Z'));
  assert.match(text, /^Pod: .*\nState: +Pending\nAge: .*\nMade by: +podvm\n\nEvents:\n {2}30s {2}! SandboxFailed/);
  assert.ok(!text.includes('Machine:'));
});

test('troubles that an examination has found come right after the state, the worst first, with their fixes', () => {
  const findings = [
    { name: 'gateway', status: 'ok', detail: '10.1.0.1 answers' },
    { name: 'memory', status: 'warn', detail: '63.0 MiB of 64.0 MiB', fix: 'Raise the memory limit.' },
    { name: 'dns', status: 'skip', detail: 'not asked' },
    { name: 'mounts of main', status: 'fail', detail: '/data waits', fix: 'Look at the file system.' },
  ] as const;
  const text = descriptionText(described, Date.now(), troublesOf({ isHealthy: false, findings: [...findings] }));
  assert.match(
    text,
    /^Addresses: .*\nSlow: .*\n\nTroubles:\n {2}! mounts of main: \/data waits\n {4}fix: Look .*\n {4}memory: 63.0 MiB of 64.0 MiB\n {4}fix: Raise .*\n\nContainers:/m,
  );
});

test('several pods are described in turn, with an error for one that is missing', async () => {
  const { machine: _, reason: _reason, ...pod } = described;
  const client = {
    get: async (path: string) => {
      const name = path.split('/')[4] ?? '';
      if (path.endsWith('/diagnosis')) throw new PodvmError('failedPrecondition', 'it has ended');
      if (name === 'gone') throw new PodvmError('notFound', 'Cannot find pod gone: no such pod');
      return { ...pod, name };
    },
  } as unknown as Client; // SAFE: the only call of the command
  const said = { stdout: '', stderr: '' };
  const streamOf = (name: keyof typeof said) =>
    new Writable({ write: (text: Buffer, _encoding, done) => done(void (said[name] += text)) });
  const terminal = { stdout: streamOf('stdout'), stderr: streamOf('stderr') } as unknown as Terminal; // SAFE: all that it uses
  assert.equal(await describeCommand(client, ['web', 'gone', 'db'], terminal), failureCode);
  assert.deepEqual(said.stdout.match(/(?:\n\n\n)?^Pod: .*/gm), [
    'Pod:        default/web',
    '\n\n\nPod:        default/db',
  ]);
  assert.match(said.stderr, /^podvm: Cannot find pod gone: no such pod\n$/);
  assert.equal(await describeCommand(client, ['pod', 'web'], terminal), 0, "kubectl's words");
});
