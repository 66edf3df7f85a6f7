import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { chartDirectory } from '../../tools/chart/chart.ts';
import type { Steps } from '../containerd/walk-steps.ts';
import { push } from './cluster-images.ts';
import type { Worker } from './cluster.ts';
import { isAsBefore, labelNode } from './deploy-steps.ts';
import { helm, repository } from './helm-steps.ts';
import { mostDown } from './installers-down.ts';
import { type Kubectl, until } from './kubectl.ts';
import { makeNextNodeImage } from './node-image.ts';
import { images } from './places.ts';
import type { HelmTour } from './tour.ts';

/** Podvm on both nodes, where one pod on each counts until the end. */
export const fleetInstallSteps: Steps<HelmTour> = [
  ['helm install installs podvm on both nodes, and systemd starts it', installs],
  ['a pod of its RuntimeClass counts on each node', startsCounters],
];

/** Upgrades that stop at the first node, and the way back. */
export const fleetFailureSteps: Steps<HelmTour> = [
  ['settings that the daemon refuses stop at the first node, whose daemon serves on', refusesSettings],
  ['a daemon that does not start stops at the first node, where the one before serves again', failsToStart],
  ['an image that is not there stops at the first node', lacksImage],
];

/** Another version with another agent and other machines, and the way back. */
export const fleetUpgradeSteps: Steps<HelmTour> = [
  ['helm upgrade goes from node to node, and no pod ends', upgrades],
  ['helm rollback goes from node to node, and no pod ends', rollsBack],
];

export const fleetLeaveSteps: Steps<HelmTour> = [['helm uninstall leaves both nodes as they were', leaves]];

const workersOf = ({ first, second }: HelmTour): readonly Worker[] => [first, second];
const inPodvm = ['-n', 'podvm'];
const rolloutMs = 900_000;
/** A pod answers `exec` at the latest after this, also while its daemon is replaced on a busy host. */
const longestGapMs = 90_000;

async function rolledOut(kubectl: Kubectl): Promise<void> {
  const status = ['rollout', 'status', 'ds/podvm', ...inPodvm, '--timeout=240s'];
  await until('the rollout has ended', () => kubectl.run(...status), rolloutMs);
}

async function change(tour: HelmTour, ...values: readonly string[]): Promise<void> {
  const flags = values.flatMap((value) => ['--set', value]);
  await helm(tour, 'upgrade', 'podvm', chartDirectory, '--reuse-values', ...flags);
}

async function installs(tour: HelmTour): Promise<void> {
  for (const worker of workersOf(tour)) await labelNode(tour, worker);
  const values = [`image.repository=${repository}`, 'settings.pool=0', 'settings.logFormat=json'];
  const flags = values.flatMap((value) => ['--set', value]);
  await helm(tour, 'install', 'podvm', chartDirectory, '--create-namespace', ...flags);
  await rolledOut(tour.kubectl);
  await tour.kubectl.run('wait', '--for=condition=Ready', 'node', '--all', '--timeout=120s');
  for (const worker of workersOf(tour)) await daemonOf(worker);
}

const counterOf = ({ node }: Worker) => `counts-on-${node.name}`;

async function startsCounters(tour: HelmTour): Promise<void> {
  const script = 'i=0; while :; do i=$((i+1)); echo $i >/next; mv /next /count; sleep 0.5; done';
  const items = workersOf(tour).map((worker) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: counterOf(worker), labels: { app: 'counts' } },
    spec: {
      runtimeClassName: 'podvm',
      nodeSelector: { 'kubernetes.io/hostname': worker.node.name },
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'main',
          image: images.busybox,
          command: ['sh', '-c', script],
          resources: { requests: { cpu: '100m' } },
          livenessProbe: { exec: { command: ['test', '-s', '/count'] }, periodSeconds: 5, timeoutSeconds: 30 },
        },
      ],
    },
  }));
  await tour.kubectl.apply(JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  await tour.kubectl.run('wait', '--for=condition=Ready', 'pod', '-l', 'app=counts', '--timeout=240s');
}

const countingPod = v.object({
  metadata: v.object({ uid: v.string() }),
  status: v.object({
    podIP: v.string(),
    startTime: v.string(),
    containerStatuses: v.array(
      v.object({
        containerID: v.string(),
        restartCount: v.number(),
        state: v.object({ running: v.object({ startedAt: v.string() }) }),
      }),
    ),
  }),
});

/** What would change if a pod, or its process, were not the same any more; and how far it has counted. */
async function countOf({ kubectl }: HelmTour, worker: Worker) {
  const pod = await kubectl.json(countingPod, 'get', 'pod', counterOf(worker));
  const said = await until(`${counterOf(worker)} answers`, () =>
    kubectl.sh(counterOf(worker), 'cut -d" " -f22 /proc/1/stat; cat /count'),
  );
  const [startedAt, count] = said.split('\n');
  return { same: { pod, startedAt }, count: Number(count) };
}

async function countsOf(tour: HelmTour) {
  return await Promise.all(workersOf(tour).map((worker) => countOf(tour, worker)));
}

/** Fails if a pod is another one than `before`, or does not count on. */
async function countOn(tour: HelmTour, before: Awaited<ReturnType<typeof countsOf>>): Promise<void> {
  for (const [at, worker] of workersOf(tour).entries()) {
    const earlier = before[at];
    assert.ok(earlier !== undefined);
    const { same, count } = await countOf(tour, worker);
    assert.deepEqual(same, earlier.same, worker.node.name);
    assert.ok(count > earlier.count, `${worker.node.name}: ${earlier.count}, then ${count}`);
  }
}

const answer = v.object({ podvm: v.string() });

/** The daemon that serves on a node. */
async function daemonOf({ node }: Worker): Promise<{ readonly version: string; readonly pid: string }> {
  const url = 'http://podvm/v1/version';
  const { stdout } = await node.run('curl', ['-sSf', '--unix-socket', '/run/podvm/podvm.sock', url]);
  const shown = await node.run('systemctl', ['show', '--property=MainPID', '--value', 'podvm.service']);
  return { version: v.parse(answer, JSON.parse(stdout)).podvm, pid: shown.stdout.trim() };
}

async function versionsOf(tour: HelmTour): Promise<readonly string[]> {
  return (await Promise.all(workersOf(tour).map(daemonOf))).map(({ version }) => version);
}

/** Each change of an installer as a line, for `mostDown`. */
const changesOfPods = [
  ...['get', 'pods', ...inPodvm, '-l', 'app.kubernetes.io/name=podvm', '--watch', '--output-watch-events', '-o'],
  'jsonpath={.type}|{.object.metadata.name}|{.object.spec.nodeName}|' +
    '{.object.status.conditions[?(@.type=="Ready")].status}|{.object.metadata.deletionTimestamp}{"\\n"}',
];

/** Makes a change, during which one node at a time has no installer that is ready, and all pods go on and answer. */
async function rolls(tour: HelmTour, makesChange: () => Promise<unknown>): Promise<void> {
  const { kubectl, say } = tour;
  const before = await countsOf(tour);
  await using followed = kubectl.speak(...changesOfPods);
  await followed.says(/\|True\|\n[^]*\|True\|\n/);
  const stop = new AbortController();
  const asking = Promise.all(workersOf(tour).map((worker) => asks(kubectl, counterOf(worker), stop.signal)));
  try {
    await makesChange();
    await rolledOut(kubectl);
  } finally {
    stop.abort();
  }
  for (const { pod, answers, failures, longestMs } of await asking) {
    say(`${pod}: ${answers} of ${answers + failures} commands of exec answered; at most ${longestMs} ms without one`);
    assert.ok(answers > 0 && longestMs < longestGapMs, pod);
  }
  await until('one node after the other was changed', async () => {
    const [changes] = await followed.says(/[^]*/);
    assert.deepEqual(mostDown(changes.split('\n')), { most: 1, now: 0, nodes: ['node1', 'node2'] }, changes);
  });
  await countOn(tour, before);
}

/** Types `exec` at a pod until `signal` aborts. */
async function asks(kubectl: Kubectl, pod: string, signal: AbortSignal) {
  let [answers, failures, longestMs, lastMs] = [0, 0, 0, performance.now()];
  while (!signal.aborted) {
    const { code } = await kubectl.try(['exec', pod, '--', 'cat', '/count']);
    const nowMs = performance.now();
    if (code === 0) {
      longestMs = Math.max(longestMs, Math.round(nowMs - lastMs));
      lastMs = nowMs;
      answers += 1;
    } else failures += 1;
    await delay(1000, undefined, { signal }).catch(() => undefined);
  }
  longestMs = Math.max(longestMs, Math.round(performance.now() - lastMs));
  return { pod, answers, failures, longestMs };
}

/** Starts a pod of the RuntimeClass on each node. */
async function startNext({ kubectl, ...tour }: HelmTour): Promise<void> {
  for (const { node } of [tour.first, tour.second]) {
    const overrides = { spec: { runtimeClassName: 'podvm', nodeSelector: { 'kubernetes.io/hostname': node.name } } };
    const flags = [`--image=${images.busybox}`, '--restart=Never', `--overrides=${JSON.stringify(overrides)}`];
    await kubectl.run('run', `next-${node.name}`, ...flags, '--command', '--', 'sleep', '100000');
  }
  const names = [tour.first, tour.second].map(({ node }) => `pod/next-${node.name}`);
  await kubectl.run('wait', '--for=condition=Ready', ...names, '--timeout=240s');
}

async function endNext({ kubectl, nodes }: HelmTour): Promise<void> {
  const names = nodes.map(({ name }) => `next-${name}`);
  await kubectl.run('delete', 'pod', ...names, '--grace-period=1');
}

const installers = v.object({
  items: v.array(
    v.object({
      metadata: v.object({ uid: v.string(), name: v.string() }),
      spec: v.object({ nodeName: v.string() }),
      status: v.object({ initContainerStatuses: v.array(v.unknown()) }),
    }),
  ),
});

interface Failure {
  readonly values: readonly string[];
  /** In the status of the installer that fails. */
  readonly why: RegExp;
  /** Whether the daemon of the first node is another process afterwards. */
  readonly isRestarted: boolean;
  readonly goBack: () => Promise<unknown>;
}

/** An upgrade that fails on the first node, to which it comes, leaves the other one and all pods as they are. */
async function stopsAtFirst(tour: HelmTour, { values, why, isRestarted, goBack }: Failure): Promise<void> {
  const { kubectl } = tour;
  const list = async () => (await kubectl.json(installers, 'get', 'pods', ...inPodvm)).items;
  const daemons = () => Promise.all(workersOf(tour).map(daemonOf));
  const settings = () => Promise.all(tour.nodes.map(async (node) => (await node.run('cat', [file])).stdout));
  const [counts, pods, served, files] = await Promise.all([countsOf(tour), list(), daemons(), settings()]);
  await change(tour, ...values);
  const failed = await until('an installer says why it fails', async () => {
    const found = (await list()).filter(({ status }) => why.test(JSON.stringify(status.initContainerStatuses)));
    assert.equal(found.length, 1);
    return found[0];
  });
  assert.ok(failed !== undefined);
  const { code, stdout } = await kubectl.try(['rollout', 'status', 'ds/podvm', ...inPodvm, '--timeout=10s']);
  assert.match(stdout, /^Waiting for daemon set "podvm" rollout to finish: [01] (?:out )?of 2/);
  assert.notEqual(code, 0);
  const others = (all: typeof pods) => all.filter(({ spec }) => spec.nodeName !== failed.spec.nodeName);
  const uids = (all: typeof pods) => others(all).map(({ metadata }) => metadata.uid);
  assert.deepEqual(uids(await list()), uids(pods));
  await until('both nodes serve with their settings', async () => {
    for (const [at, daemon] of (await daemons()).entries()) {
      const isSame: boolean = tour.nodes[at]?.name !== failed.spec.nodeName || !isRestarted;
      assert.equal(daemon.version, served[at]?.version);
      assert.equal(daemon.pid === served[at]?.pid, isSame, `at node ${at + 1}`);
    }
    assert.deepEqual(await settings(), files);
  });
  await goBack();
  await rolledOut(kubectl);
  await until('both nodes serve', daemons);
  await startNext(tour);
  await endNext(tour);
  await countOn(tour, counts);
}

const file = '/etc/podvm/podvm.yaml';
const undone = (tour: HelmTour) => () => helm(tour, 'rollback', 'podvm');

async function refusesSettings(tour: HelmTour): Promise<void> {
  const why = /`?pool`?[^]*many/;
  await stopsAtFirst(tour, { values: ['settings.pool=many'], why, isRestarted: false, goBack: undone(tour) });
}

/** The address is that of a kubelet. The settings are part of the pods' template, so that kubectl knows the way back, too. */
async function failsToStart(tour: HelmTour): Promise<void> {
  const goBack = async () => await tour.kubectl.run('rollout', 'undo', 'ds/podvm', ...inPodvm);
  const why = /127\.0\.0\.1:10248[^]*this version does not serve, and is not installed/;
  await stopsAtFirst(tour, { values: ['settings.metricsAddress=127.0.0.1:10248'], why, isRestarted: true, goBack });
  await undone(tour)();
  await rolledOut(tour.kubectl);
}

async function lacksImage(tour: HelmTour): Promise<void> {
  const why = /ErrImagePull|ImagePullBackOff/;
  await stopsAtFirst(tour, { values: ['image.tag=absent'], why, isRestarted: false, goBack: undone(tour) });
}

const nextVersion = '0.2.0-next';

/** Sizes of translated code of the machines on a node, by which builds differ. */
async function machinesOn({ node }: Worker): Promise<readonly string[]> {
  const sizes = (await node.processes()).flatMap(
    (line) => /^\s*\d+ \S*qemu-system.*\btb-size=(\d+)/.exec(line)?.[1] ?? [],
  );
  return sizes.toSorted();
}

async function upgrades(tour: HelmTour): Promise<void> {
  const { nodes, work, kubectl } = tour;
  const image = await makeNextNodeImage(join(work, 'next'), nextVersion, tour.signal);
  await push(nodes[0], image, `${repository}:${nextVersion}`);
  await rolls(tour, () => change(tour, `image.tag=${nextVersion}`));
  assert.deepEqual(await versionsOf(tour), [nextVersion, nextVersion]);
  await startNext(tour);
  for (const worker of workersOf(tour)) {
    await until('a machine of each version runs', async () => {
      assert.deepEqual(await machinesOn(worker), ['80', '96'], worker.node.name);
    });
    assert.notEqual(await kubectl.sh(`next-${worker.node.name}`, 'cat /proc/uptime'), '');
  }
}

/** To the version of the installation. The pods that the other version has started stay, too. */
async function rollsBack(tour: HelmTour): Promise<void> {
  const older = images.node.slice(images.node.lastIndexOf(':') + 1);
  await rolls(tour, undone(tour));
  assert.deepEqual(await versionsOf(tour), [older, older]);
  for (const { node } of workersOf(tour)) {
    const answers = () => tour.kubectl.sh(`next-${node.name}`, 'cat /proc/uptime');
    assert.notEqual(await until('the pod of the other version answers', answers), '');
  }
  await endNext(tour);
  await startNext(tour);
  await endNext(tour);
}

async function leaves(tour: HelmTour): Promise<void> {
  const { kubectl } = tour;
  await kubectl.run('delete', 'pod', '-l', 'app=counts');
  await change(tour, 'action=uninstall', 'removeState=true');
  await rolledOut(kubectl);
  await helm(tour, 'uninstall', 'podvm', '--wait');
  await kubectl.run('delete', 'namespace', 'podvm');
  for (const worker of workersOf(tour)) {
    const { stdout } = await worker.node.run('systemctl', ['is-active', 'containerd', 'podvm'], { okCodes: 'any' });
    assert.equal(stdout, 'active\ninactive\n');
    await isAsBefore(worker);
  }
}
