import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { test } from 'node:test';
import { poll } from '#host/wait.ts';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from './schema/generated/types/task/task_pb.ts';
import { containerSpec, podSpec } from './testing/bundles.ts';
import { type ServedShim, openShim, rootfs } from './testing/served-shim.ts';

const soon = { ms: 60_000 };
const verbs = Task.method;

/** Numbers of the streams in the last call of that method. */
function streamsOf({ parts }: ServedShim, method: 'createContainer' | 'startExec') {
  const call = parts.guest.calls.findLast((each) => each.method === method);
  assert.ok(call !== undefined);
  return call.params['stdio'] as { stdin: number; stdout: number; stderr: number };
}

test('a pod and its container pass all states from create to delete', async () => {
  await using shim = await openShim();
  const { client } = shim;
  await shim.pod();
  const guestId = await shim.container('box-1');
  const { pid, status } = await client.call(verbs.state, { id: 'box-1' }, soon);
  assert.equal(status, Status.RUNNING);
  assert.ok(pid > 4_194_304, 'no process of the host has it');
  const { processes } = await client.call(verbs.pids, { id: 'box-1' }, soon);
  assert.deepEqual(
    processes.map((process) => process.pid),
    [pid],
  );
  assert.equal((await client.call(verbs.connect, { id: 'box-1' }, soon)).taskPid, pid);
  await assert.rejects(client.call(verbs.delete, { id: 'box-1' }, soon), { kind: 'failedPrecondition' });

  const waiting = client.call(verbs.wait, { id: 'box-1' }, soon);
  shim.exit(guestId, 42);
  assert.equal((await waiting).exitStatus, 42);
  const stopped = await client.call(verbs.state, { id: 'box-1' }, soon);
  assert.deepEqual([stopped.status, stopped.exitStatus], [Status.STOPPED, 42]);
  assert.equal((await client.call(verbs.pids, { id: 'box-1' }, soon)).processes.length, 1);
  await assert.rejects(client.call(verbs.kill, { id: 'box-1', signal: 9 }, soon), { kind: 'notFound' });
  assert.equal((await client.call(verbs.delete, { id: 'box-1' }, soon)).exitStatus, 42);
  await assert.rejects(client.call(verbs.state, { id: 'box-1' }, soon), { kind: 'notFound' });
  await client.call(verbs.shutdown, { id: 'box-1' }, soon);

  const ended = client.call(verbs.wait, { id: 'pod-1' }, soon);
  await client.call(verbs.kill, { id: 'pod-1', signal: 9 }, soon);
  assert.equal((await ended).exitStatus, 137);
  assert.equal((await client.call(verbs.delete, { id: 'pod-1' }, soon)).exitStatus, 137);
  assert.deepEqual([...shim.parts.alive], []);
});

test('events arrive in order, with the OOM event before the exit', async () => {
  await using shim = await openShim();
  const { client } = shim;
  await shim.pod();
  const guestId = await shim.container('box-1');
  shim.exit(guestId, 137, true);
  await client.call(verbs.wait, { id: 'box-1' }, soon);
  assert.ok(shim.told.includes('/tasks/oom box-1'), 'it is told before the exit is');
  await client.call(verbs.delete, { id: 'box-1' }, soon);
  await poll(() => Promise.resolve(shim.told.length >= 7 || undefined), { everyMs: 5 });
  assert.deepEqual(shim.told, [
    '/tasks/create pod-1',
    '/tasks/start pod-1',
    ...['create', 'start', 'oom', 'exit', 'delete'].map((topic) => `/tasks/${topic} box-1`),
  ]);
});

test('output reaches its FIFO, and ends with the process; input comes from another FIFO', async () => {
  await using shim = await openShim();
  const io = await shim.io('box');
  await shim.pod();
  const guestId = await shim.container('box-1', containerSpec, io.paths);
  const { stdin, stdout } = streamsOf(shim, 'createContainer');
  const input = new Promise((resolve) => void shim.parts.guest.stream(stdin).once('data', resolve));
  await io.stdin.write('question');
  assert.equal(String(await input), 'question');
  shim.parts.guest.stream(stdout).end('hello\n');
  const ended = new Promise((resolve) => void shim.parts.guest.stream(stdin).once('end', resolve));
  await io.stdin.close();
  await shim.client.call(verbs.closeIO, { id: 'box-1', stdin: true }, soon);
  await ended;
  shim.exit(guestId, 0);
  assert.equal(await io.stdout(), 'hello\n');
});

test('a command runs in a container, with its own FIFOs, exit code and events', async () => {
  await using shim = await openShim();
  const { client } = shim;
  await shim.pod();
  await shim.container('box-1');
  const io = await shim.io('exec');
  const spec = { typeUrl: 'x', value: Buffer.from(JSON.stringify({ ...containerSpec.process, args: ['date'] })) };
  const ids = { id: 'box-1', execId: 'e1' };
  await client.call(verbs.exec, { ...ids, spec, ...io.paths }, soon);
  await assert.rejects(client.call(verbs.exec, { ...ids, spec }, soon), { kind: 'alreadyExists' });
  assert.equal((await client.call(verbs.state, ids, soon)).status, Status.CREATED);
  const waiting = client.call(verbs.wait, ids, soon);
  const { pid } = await client.call(verbs.start, ids, soon);
  assert.ok(pid > 4_194_304);
  assert.equal((await client.call(verbs.pids, { id: 'box-1' }, soon)).processes.length, 2);
  const { params } = shim.parts.guest.calls.findLast(({ method }) => method === 'startExec') ?? {};
  assert.deepEqual([params?.['args'], params?.['cwd']], [['date'], '/']);
  const asUser = { ...containerSpec.process, user: { uid: 5 } };
  const other = { typeUrl: 'x', value: Buffer.from(JSON.stringify(asUser)) };
  await assert.rejects(client.call(verbs.exec, { id: 'box-1', execId: 'e2', spec: other }, soon), {
    kind: 'unsupported',
  });
  const { stdout, stderr } = streamsOf(shim, 'startExec');
  shim.parts.guest.stream(stdout).end('today\n');
  shim.parts.guest.stream(stderr).end();
  const [containerId, execId] = [String(params?.['containerId']), String(params?.['execId'])];
  const ended = {
    kind: 'exited',
    containerId,
    execId,
    exitCode: 3,
    oomKilled: false,
    finishedAtMs: Date.now(),
  } as const;
  shim.parts.guest.tell(ended);
  assert.equal((await waiting).exitStatus, 3);
  assert.equal(await io.stdout(), 'today\n');
  assert.equal((await client.call(verbs.delete, ids, soon)).exitStatus, 3);
  await assert.rejects(client.call(verbs.state, ids, soon), { kind: 'notFound' });
});

test('what a machine does not support is refused, with a message for the user', async () => {
  await using shim = await openShim();
  const { client } = shim;
  const namespaces = podSpec.linux.namespaces.filter(({ type }) => type !== 'network' && type !== 'pid');
  const onHost = { ...podSpec, linux: { ...podSpec.linux, namespaces } };
  await assert.rejects(shim.pod(onHost), {
    kind: 'failedPrecondition',
    message: /shares the host's namespaces: network, pid\. Run it with runc/,
  });
  const create = async (id: string, spec: object, more: object = {}) =>
    await client.call(verbs.create, { id, bundle: await shim.bundle(id, spec), rootfs, ...more }, soon);
  await assert.rejects(create('box-1', containerSpec), { kind: 'notFound' }, 'it has no pod');
  await shim.pod();
  await assert.rejects(create('box-1', { process: {} }), { kind: 'invalid', message: /OCI runtime specification/ });
  await assert.rejects(create('box-1', containerSpec, { checkpoint: '/x' }), { kind: 'unsupported' });
  await assert.rejects(create('box-1', containerSpec, { stdout: 'binary:///log' }), { kind: 'unsupported' });
  await assert.rejects(create('box-1', containerSpec, { stdout: '/etc/passwd' }), {
    kind: 'invalid',
    message: /not a FIFO/,
  });
  await assert.rejects(client.call(verbs.create, { id: 'box-1', bundle: '/tmp/other' }, soon), { kind: 'invalid' });
  await assert.rejects(client.call(verbs.pause, { id: 'pod-1' }, soon), { kind: 'unsupported' });
  assert.ok(await create('box-1', containerSpec), 'none of it keeps the id');
});

test('a container that cannot start fails at its creation, and leaves nothing', async () => {
  await using shim = await openShim();
  await shim.pod();
  shim.parts.before = async (step) => {
    if (step === 'call createContainer') throw new Error('the link is torn');
  };
  await assert.rejects(shim.container('box-1'), { kind: 'internal' });
  shim.parts.before = () => Promise.resolve();
  await shim.container('box-1');
});

test('the tasks of a pod share one measurement', async () => {
  await using shim = await openShim();
  const { client, parts } = shim;
  await shim.pod();
  await shim.container('box-1');
  const measured = () => parts.guest.calls.filter(({ method }) => method === 'stats').length;
  for (const id of ['pod-1', 'box-1']) {
    const { stats } = await client.call(verbs.stats, { id }, soon);
    assert.equal(stats?.typeUrl, 'io.containerd.cgroups.v2.Metrics');
  }
  assert.equal(measured(), 1);
  await assert.rejects(client.call(verbs.stats, { id: 'box-2' }, soon), { kind: 'notFound' });
});

test('the last figures of a pod stand for those of a guest that does not answer in time', async () => {
  await using shim = await openShim();
  const { client, parts } = shim;
  await shim.pod();
  await shim.container('box-1');
  const statsOf = async () => (await client.call(verbs.stats, { id: 'box-1' }, soon)).stats;
  const first = await statsOf();
  let isBusy = false;
  const busy = Promise.withResolvers<void>();
  parts.before = async (step) => {
    if (step !== 'call stats') return;
    isBusy = true;
    await busy.promise;
  };
  const isBeyond = async () => {
    assert.deepEqual(await statsOf(), first);
    return isBusy ? true : undefined;
  };
  assert.equal(await poll(isBeyond, { everyMs: 50, signal: AbortSignal.timeout(60_000) }), true);
  busy.resolve();
});

test('a pod whose bundle is removed ends with its containers', async () => {
  await using shim = await openShim();
  await shim.pod();
  await shim.container('box-1');
  await rm(await shim.bundle('pod-1', podSpec), { recursive: true });
  const isGone = async () => {
    const state = await shim.client.call(verbs.state, { id: 'box-1' }, soon).catch(() => undefined);
    return state === undefined && shim.parts.alive.size === 0 ? true : undefined;
  };
  assert.ok(await poll(isGone, { everyMs: 20, signal: AbortSignal.timeout(60_000) }));
});

test('a machine that dies ends its container and its pod', async () => {
  await using shim = await openShim();
  const { client } = shim;
  await shim.pod();
  await shim.container('box-1');
  const waiting = ['box-1', 'pod-1'].map((id) => client.call(verbs.wait, { id }, soon));
  shim.parts.killMachine('it was killed by SIGKILL');
  for (const { exitStatus } of await Promise.all(waiting)) assert.equal(exitStatus, 137);
  for (const id of ['box-1', 'pod-1']) await client.call(verbs.delete, { id }, soon);
});

test('pods survive a replacement of the daemon: pending waits are answered, and output is complete', async () => {
  await using shim = await openShim();
  const { client } = shim;
  const io = await shim.io('box');
  await shim.pod();
  const guestId = await shim.container('box-1', containerSpec, io.paths);
  const { pid } = await client.call(verbs.state, { id: 'box-1' }, soon);
  const output = shim.parts.guest.stream(streamsOf(shim, 'createContainer').stdout);
  output.write('before ');
  const reading = io.stdout();
  const [waiting, podWaiting] = ['box-1', 'pod-1'].map((id) => client.call(verbs.wait, { id }, { ms: 60_000 }));
  await shim.end();

  const away = await client.call(verbs.state, { id: 'box-1' }, soon);
  assert.deepEqual([away.status, away.pid], [Status.RUNNING, pid]);
  assert.equal((await client.call(verbs.connect, { id: 'box-1' }, soon)).taskPid, pid);
  assert.equal((await client.call(verbs.pids, { id: 'box-1' }, soon)).processes[0]?.pid, pid);
  await assert.rejects(client.call(verbs.stats, { id: 'box-1' }, soon), { kind: 'unavailable' });
  const killing = client.call(verbs.kill, { id: 'box-1', signal: 10 }, soon);

  await shim.next();
  await killing;
  assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).pid, pid);
  const attached = shim.parts.guest.calls.findLast(({ method }) => method === 'attach');
  assert.deepEqual(attached?.params['from'], { stdout: 'before '.length, stderr: 0 });
  const continued = attached.params['stdio'] as { stdout: number; stderr: number };
  shim.parts.guest.stream(continued.stdout).end('after');
  shim.parts.guest.stream(continued.stderr).end();
  shim.exit(guestId, 42);
  assert.equal((await waiting)?.exitStatus, 42);
  assert.equal(await reading, 'before after');
  await client.call(verbs.delete, { id: 'box-1' }, soon);
  await client.call(verbs.kill, { id: 'pod-1', signal: 9 }, soon);
  assert.equal((await podWaiting)?.exitStatus, 137);
  await client.call(verbs.delete, { id: 'pod-1' }, soon);
  await poll(() => Promise.resolve(shim.told.includes('/tasks/delete pod-1') || undefined), { everyMs: 5 });
  assert.equal(shim.told.filter((topic) => topic === '/tasks/exit box-1').length, 1);
});

test('an exit while no daemon runs is reported by the next one, and a reported one is not repeated', async () => {
  await using shim = await openShim();
  await shim.pod();
  const [told, untold] = [await shim.container('box-1'), await shim.container('box-2')];
  const isTold = (topic: string) => () => Promise.resolve(shim.told.includes(topic) || undefined);
  shim.exit(told, 3);
  await poll(isTold('/tasks/exit box-1'), { everyMs: 5 });
  await shim.client.call(verbs.wait, { id: 'box-1' }, soon);
  await shim.end();
  shim.exit(untold, 4);
  await shim.next();
  assert.equal((await shim.client.call(verbs.wait, { id: 'box-2' }, soon)).exitStatus, 4);
  assert.equal((await shim.client.call(verbs.wait, { id: 'box-1' }, soon)).exitStatus, 3);
  await poll(isTold('/tasks/exit box-2'), { everyMs: 5 });
  assert.equal(shim.told.filter((topic) => topic === '/tasks/exit box-1').length, 1);
});

test('a pod that containerd has deleted meanwhile is removed', async () => {
  await using shim = await openShim();
  await shim.pod();
  await shim.container('box-1');
  await shim.end();
  await rm(await shim.bundle('pod-1', podSpec), { recursive: true });
  await shim.next();
  assert.ok(!shim.parts.alive.has('machine'));
  await assert.rejects(shim.client.call(verbs.state, { id: 'box-1' }, soon), { kind: 'notFound' });
});
