import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guestText } from '#base/guest-text.ts';
import type { Examination, GuestView, Space } from '#sandbox/figures/examination.ts';
import { fakeVersions } from '#sandbox/testing/fake-parts.ts';
import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { diagnose, type DiagnosedPod } from './diagnose.ts';

const soon = () => AbortSignal.timeout(60_000);
const room: Space = { totalBytes: 1000, freeBytes: 900, totalInodes: 100, freeInodes: 90 };

const noFigures = {
  ...{ memoryBytes: 90, memoryPeakBytes: 90, rssBytes: 0, inactiveFileBytes: 0, pageFaults: 0, majorPageFaults: 0 },
  ...{ swapBytes: 0, memoryLimitBytes: 1000, oomKills: 0, cpuUsec: 0, pids: 1, cpuUserUsec: 0, cpuSystemUsec: 0 },
  ...{ cpuPeriods: 100, cpuThrottledPeriods: 0, cpuThrottledUsec: 0, cacheBytes: 0, mappedFileBytes: 0 },
  ...{ activeFileBytes: 0, kernelBytes: 0, memoryLimitHits: 0, devices: [], ulimits: [], interfaces: [] },
};

const view: GuestView = {
  clockAheadMs: 20,
  clockErrorMs: 5,
  addresses: new Set(['10.1.0.2']),
  gateways: [{ address: '10.1.0.1', outcome: 'reached' }],
  nameservers: [{ address: '10.96.0.10', name: 'the root', answer: { value: { outcome: 'NOERROR', ms: 3 } } }],
  pressure: { cpu: 0, memory: 0, io: 0 },
  volumes: [{ name: 'data', space: room }],
};

const well: Examination = {
  answer: { value: 2 },
  guest: { value: view },
  figures: { value: noFigures },
  containers: [
    {
      name: 'main',
      oomKills: { value: 0 },
      layer: { value: { bytes: 10, limitBytes: 1000 } },
      mounts: {
        value: [{ mountPath: '/data', mode: 'scratch', volume: 'data', isWantedReadOnly: false, inGuest: 'writable' }],
      },
    },
  ],
  lostPorts: [],
  dropped: { value: new Map([['forged', 0]]) },
};

function podOf(examination: Examination, changes: Partial<DiagnosedPod['sandbox']> = {}): DiagnosedPod {
  const status: DiagnosedPod['sandbox']['status'] = {
    ...{ id: 'a', state: 'ready', createdAt: new Date(0), addresses: ['10.1.0.2'], parts: fakeVersions },
    ...{ phases: [], containers: [], volumes: [] },
  };
  const { key: _, ...versions } = fakeVersions;
  return {
    name: 'web',
    versions,
    events: [],
    waiting: [],
    pulling: [],
    sandbox: {
      ...{ status, spec: sandboxSpec, containers: [] },
      examine: () => Promise.resolve(examination),
      consoleTail: () => Promise.resolve([]),
      ...changes,
    },
  };
}

/** Findings that are not `ok`, as `status name: detail`; each of them has a fix or was not checked. */
async function troubles(pod: DiagnosedPod): Promise<readonly string[]> {
  const { findings, isHealthy } = await diagnose(pod, soon());
  assert.equal(isHealthy, !findings.some(({ status }) => status === 'fail'));
  return findings.flatMap(({ name, status, detail, fix }) => {
    if (status === 'ok') return [];
    assert.ok(status === 'skip' || fix !== undefined, `${name} has no fix`);
    return [`${status} ${name}: ${detail}`];
  });
}

test('a sound pod has no faults', async () => {
  assert.deepEqual(await troubles(podOf(well)), []);
});

test('a guest that does not answer is reported, without findings from inside it', async () => {
  const why = 'Cannot call ping of the agent: it did not answer in time';
  const [main] = well.containers;
  const silent = { ...well, answer: { why }, guest: { why }, figures: { why } };
  const containers = [{ name: main?.name ?? '', oomKills: { why }, layer: { why }, mounts: { why } }];
  assert.deepEqual(await troubles(podOf({ ...silent, containers })), [
    `fail agent: the guest does not answer: ${why}`,
    `skip mounts of main: ${why}`,
    `skip out of memory: ${why}`,
  ]);
});

test('text of others comes out escaped and bounded, also in a fix', async () => {
  const address = `fe80::1%${'a'.repeat(5000)}`;
  const nameservers = [{ address, name: 'the root', answer: { why: 'Cannot ask port 53 from the guest: no answer' } }];
  const examination = { ...well, guest: { value: { ...view, nameservers } }, answer: { why: 'x' } };
  const { findings } = await diagnose({ ...podOf(examination), name: 'a\u001b[31mb' }, soon());
  for (const { name, detail, fix = '' } of findings) {
    assert.doesNotMatch(name + detail + fix, /\p{Cc}/u);
    assert.ok(name.length + detail.length + fix.length < 1100);
  }
});

test('an agent of an older podvm is not asked', async () => {
  const why = 'Cannot answer: there is no such method';
  const told = await troubles(podOf({ ...well, guest: { why } }));
  assert.deepEqual(told, ['skip guest: its agent is older than this podvm and cannot be asked']);
});

test('each trouble of the network is a line of its own', async () => {
  const guest: GuestView = {
    ...view,
    addresses: new Set(),
    gateways: [{ address: '10.1.0.1', outcome: 'unreachable' }],
    nameservers: [
      { address: '127.0.0.1', name: 'the root', answer: { why: 'Cannot ask port 53 from the guest: ECONNREFUSED' } },
      { address: '10.0.0.2', name: 'the root', answer: { why: 'Cannot ask port 53 from the guest: no answer' } },
      { address: '10.0.0.3', name: 'the root', answer: { value: { outcome: 'SERVFAIL', ms: 1 } } },
      { address: '10.0.0.4', name: 'the root', answer: { value: { outcome: undefined, ms: 1 } } },
    ],
  };
  const link = { name: 'eth0', rxBytes: 0, rxPackets: 990, rxErrors: 0, rxDropped: 99, txBytes: 0, txPackets: 10 };
  const interfaces = [{ ...link, txErrors: 0, txDropped: 0 }];
  const hostPort = { hostPort: 80, containerPort: 80, protocol: 'TCP' as const };
  const examination: Examination = {
    ...well,
    guest: { value: guest },
    figures: { value: { ...noFigures, interfaces } },
    lostPorts: ['80/TCP'],
    dropped: { value: new Map([['forged', 3]]) },
  };
  assert.deepEqual(await troubles(podOf(examination, { spec: { ...sandboxSpec, hostPorts: [hostPort] } })), [
    'fail address: the guest does not have 10.1.0.2',
    'fail gateway: 10.1.0.1 does not answer',
    'fail dns: 127.0.0.1: nothing listens there (ECONNREFUSED)',
    'fail dns: 10.0.0.2: no answer',
    'warn dns: 10.0.0.3 answers about the root in 1 ms: SERVFAIL',
    'fail dns: 10.0.0.4 answers with something that is not DNS',
    'fail host ports: not held for the pod: 80/TCP',
    'warn link: eth0: 990 packets in, 10 out, 99 lost',
    'warn refused packets: 3 (forged)',
  ]);
});

test('so is each trouble of mounts, clock, memory and processor', async () => {
  const mount = { mode: 'share', volume: 'host_1', isWantedReadOnly: false, inGuest: 'writable' } as const;
  const served = {
    path: '/srv',
    server: 'running',
    oldestSeconds: 0,
    meanSeconds: 0.05,
    space: { value: room },
  } as const;
  const mounts = [
    { ...mount, mountPath: '/a', inGuest: 'absent' as const },
    { ...mount, mountPath: '/b', inGuest: 'readOnly' as const },
    { ...mount, mountPath: '/c', isWantedReadOnly: true },
    { ...mount, mountPath: '/d', served: { ...served, server: 'gone' as const } },
    { ...mount, mountPath: '/e', served: { ...served, server: 'stopped' as const } },
    { ...mount, mountPath: '/f', served: { ...served, space: { why: '/srv does not answer' } } },
    { ...mount, mountPath: '/h', served: { ...served, oldestSeconds: 31.5 } },
    { ...mount, mountPath: '/i', served: { ...served, oldestSeconds: 4.9 } },
    { ...mount, mountPath: '/j', served: { ...served, meanSeconds: 0.414 } },
    { ...mount, mountPath: '/g', served: { ...served, space: { value: { ...room, freeInodes: 0 } } } },
  ];
  const full = { name: 'data', space: { ...room, freeBytes: 50 } };
  const guest = { ...view, clockAheadMs: -90_000, pressure: { cpu: 80, memory: 20, io: 70 }, volumes: [full] };
  const figures = { ...noFigures, memoryBytes: 950, cpuThrottledPeriods: 50, oomKills: 2 };
  const layer = { value: { bytes: 950 * 2 ** 20, limitBytes: 1000 * 2 ** 20 } };
  const containers = [{ name: 'main', oomKills: { value: 2 }, layer, mounts: { value: mounts } }];
  const told = await troubles(podOf({ ...well, guest: { value: guest }, figures: { value: figures }, containers }));
  const starts = [
    'warn clock: 90.000 s behind',
    ...['fail mounts of main: /a is not mounted', 'fail mounts of main: /b is read-only'],
    'fail mounts of main: /c is writable',
    'fail mounts of main: /d is lost: the file server of /srv has ended',
    'fail mounts of main: /e waits: the file server of /srv is stopped',
    "warn mounts of main: /f: the host's /srv cannot be looked at: /srv does not answer",
    'fail mounts of main: /h waits: a request to /srv has not been answered for 31 s',
    'warn mounts of main: /j is slow: a request to /srv takes 0.41 s on average',
    'fail mounts of main: /g: /srv on the node: 0.0 of 0.0 MiB free, 0 of 100 files',
    'warn disk of main: 950.0 of 1000.0 MiB written outside of volumes',
    'warn volume: data: 0.0 of 0.0 MiB free',
    'warn memory: 0.0 MiB of 0.0 MiB; tasks wait 20.0 %',
    'warn processor: throttled in 50 % of its time; tasks wait 80.0 %',
    'warn disk: tasks wait 70.0 %',
    'warn out of memory: 2 killed (main: 2)',
  ];
  assert.equal(told.length, starts.length, told.join('\n'));
  for (const [at, start] of starts.entries()) assert.ok(told[at]?.startsWith(start), `${told[at]} is not ${start}`);
});

test('text of the guest comes out escaped and bounded', async () => {
  const evil = `\u001b[31m${'x'.repeat(10_000)}`;
  const consoleTail = () => Promise.resolve([guestText(`Kernel panic ${evil}`)]);
  const pod = podOf({ ...well, guest: { why: evil } }, { consoleTail });
  const { findings } = await diagnose(pod, soon());
  for (const { detail } of findings) assert.match(detail, /^[\u0020-\u007e]{0,320}$/);
  assert.match(findings.find(({ name }) => name === 'kernel')?.detail ?? '', /^Kernel panic \\u001b/);
});

test('a machine that has failed is not asked, and older parts are named', async () => {
  const { status } = podOf(well).sandbox;
  const failed = {
    ...status,
    state: 'failed',
    failure: 'QEMU was killed',
    parts: { ...fakeVersions, qemu: '1' },
  } as const;
  const examine = () => assert.fail('asked');
  assert.deepEqual(await troubles(podOf(well, { status: failed, examine })), [
    'fail machine: failed: QEMU was killed',
    `warn versions: qemu 1 instead of ${fakeVersions.qemu}`,
  ]);
});

test('a paused machine is said to be paused, and is not asked', async () => {
  const status = { ...podOf(well).sandbox.status, isPaused: true as const };
  const paused = podOf(well, { status, examine: () => assert.fail('asked') });
  assert.deepEqual(await troubles(paused), ['warn machine: paused: it was not looked into']);
});

test('a container that waits for a pull is told of, and of which image', async () => {
  const waiting = [
    { name: 'main', image: 'nginx' },
    { name: 'other', image: 'localhost/podvm/base:latest' },
  ];
  const pullFor = (seconds: number) => [
    { reference: 'docker.io/library/nginx:latest', sinceMs: Date.now() - 1000 * seconds },
  ];
  assert.deepEqual(await troubles({ ...podOf(well), waiting, pulling: pullFor(5) }), []);
  const [told, ...more] = await troubles({ ...podOf(well), waiting, pulling: pullFor(45) });
  const words =
    /^warn image of main: main waits for the pull of docker\.io\/library\/nginx:latest, which has taken 4\d s$/;
  assert.match(told ?? '', words);
  assert.deepEqual(more, []);
});

test('a pod is examined also while a container waits for an image that has no name', async () => {
  const pulling = [{ reference: 'docker.io/library/nginx:latest', sinceMs: Date.now() - 45_000 }];
  for (const image of ['Web:latest', `sha256:${'a'.repeat(64)}`])
    assert.deepEqual(await troubles({ ...podOf(well), waiting: [{ name: 'main', image }], pulling }), [], image);
});
