import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { createLog } from '#host/log/log.ts';
import { defaultLimits } from '../limits.ts';
import { readLog } from '../log/read-log.ts';
import { recordVersion } from '../recovery/record.ts';
import type { ContainerSpec, Sandbox } from '../sandbox.ts';
import { openSandboxes, type OpenSandboxes, type OpenSandboxesOptions } from '../sandboxes.ts';
import { containerSpec, sandboxSpec } from '../testing/examples.ts';
import { createFakeParts, type FakeParts } from '../testing/fake-parts.ts';

const never = new AbortController().signal;
const limits = { ...defaultLimits, userIds: { first: 1000, count: 1 }, drainTimeoutMs: 200 };
const kept = { ...sandboxSpec, isKept: true };
type Wanted = NonNullable<OpenSandboxesOptions['takesOver']>;

/** A state directory used by one process after another, while its machine keeps running. */
async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-take-over-'));
  const parts = createFakeParts(directory);
  const said: string[] = [];
  const log = createLog('info', (line) => said.push(line));
  const open = (takesOver: Wanted = () => true) => openSandboxes({ directory, parts, log, limits, takesOver }, never);
  let sandboxes: OpenSandboxes = await open();
  return {
    directory,
    parts,
    said,
    root: join(directory, 'sandboxes'),
    get sandboxes() {
      return sandboxes;
    },
    end: () => sandboxes[Symbol.asyncDispose](),
    async next(takesOver?: Wanted): Promise<Sandbox | undefined> {
      sandboxes = await open(takesOver);
      return sandboxes.list()[0];
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(sandboxes.list().map((sandbox) => sandbox.remove()));
      await sandboxes[Symbol.asyncDispose]();
      assert.deepEqual(leftOf(parts), []);
      assert.deepEqual(await readdir(join(directory, 'sandboxes')), []);
      await rm(directory, { recursive: true });
    },
  };
}

/**
 * Leaves out the scratch disk, a file in the sandbox's directory that the next process finds again, and images, which
 * were held by the earlier process only.
 */
const leftOf = ({ alive }: FakeParts) => [...alive].filter((name) => !/^(scratch|image)$/.test(name));

async function started(sandbox: Sandbox, spec: Partial<ContainerSpec> = {}) {
  const container = await sandbox.createContainer({ ...containerSpec, ...spec }, never);
  await container.start(never);
  return container;
}

const exitOf = (containerId: string, exitCode: number) =>
  ({ kind: 'exited', containerId, exitCode, oomKilled: false, finishedAtMs: 2000 }) as const;

test('a kept sandbox continues in the next process, with its containers, name and user id', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  const main = await started(before);
  const over = await started(before, { name: 'over', attempt: 4 });
  const idle = await before.createContainer({ ...containerSpec, name: 'idle' }, never);
  const { status } = before;
  await node.end();
  assert.ok(node.parts.alive.has('machine'));
  node.parts.guest.tell(exitOf(over.status.id, 7));

  const after = (await node.next()) ?? assert.fail(node.said.join(''));
  assert.deepEqual({ ...after.status, containers: [] }, { ...status, containers: [] });
  assert.deepEqual(after.spec, kept);
  const found = after.containers;
  assert.deepEqual(
    found.map(({ status: { id } }) => id),
    [main, over, idle].map(({ status: { id } }) => id),
  );
  assert.deepEqual(found[0]?.status, main.status);
  assert.equal((await found[1]?.exited)?.exitCode, 7);
  assert.equal(found[1]?.status.attempt, 4);
  assert.equal(found[2]?.status.state, 'created');
  await found[2].start(never);
  await assert.rejects(node.sandboxes.run(kept, never), { kind: 'alreadyExists' });
  await assert.rejects(node.sandboxes.run({ ...kept, name: 'other' }, never), { kind: 'exhausted' });
  node.parts.guest.tell(exitOf(main.status.id, 3));
  assert.equal((await found[0]?.exited)?.exitCode, 3);
});

const connections = [
  ['that is connected meanwhile', () => Promise.resolve(), undefined],
  [
    'that cannot be connected',
    () => Promise.reject(new PodvmError('failedPrecondition', 'Cannot add route ::/0')),
    /Cannot take over the sandbox: its guest has no network: Cannot add route ::\/0$/,
  ],
  ['that the call to connect has not reached', undefined, undefined],
] as const;
for (const [what, connect, failure] of connections) {
  test(`a kept sandbox with a guest ${what} is ${failure === undefined ? 'taken over' : 'ended'}`, async () => {
    await using node = await place();
    const { promise, resolve } = Promise.withResolvers<void>();
    const connecting = promise.then(() => connect?.());
    connecting.catch(() => undefined);
    node.parts.before = async (step) => {
      if (step === 'call configure') node.parts.guest.delays.set('connect', connecting);
    };
    const before = await node.sandboxes.run(kept, never);
    await before.createContainer(containerSpec, never);
    await node.end();
    const { guest } = node.parts;
    if (connect === undefined) {
      guest.answers.set('list', () => ({ containers: [], volumes: [], disks: ['scratch'] }));
      guest.answers.set('connect', () => ({ phases: [] })); // its container is one that the call has not reached, either
    }
    const next = node.next();
    resolve();
    const after = (await next) ?? assert.fail(node.said.join(''));
    assert.equal(after.status.state, failure === undefined ? 'ready' : 'failed');
    const connects = guest.calls.filter(({ method }) => method === 'connect');
    assert.equal(connects.length, connect === undefined ? 2 : 1);
    assert.deepEqual(connects.at(-1), connects[0]);
    if (failure !== undefined) assert.match(after.status.failure ?? '', failure);
    else if (connect === undefined) assert.deepEqual(after.containers, []);
    else await after.containers[0]?.start(never);
  });
}

test('a container whose start waits for the guest to be connected when its process leaves is started by the next', async () => {
  await using node = await place();
  const { promise: connecting, resolve } = Promise.withResolvers<void>();
  node.parts.before = async (step) => {
    if (step === 'call configure') node.parts.guest.delays.set('connect', connecting);
  };
  const before = await node.sandboxes.run(kept, never);
  const container = await before.createContainer(containerSpec, never);
  const start = assert.rejects(container.start(never), { kind: 'unavailable' });
  await before.stats(never);
  await node.end();
  await start;
  resolve();
  const after = (await node.next()) ?? assert.fail(node.said.join(''));
  const found = after.containers[0] ?? assert.fail('its container is gone');
  assert.equal(found.status.state, 'created');
  await found.start(never);
  assert.equal(found.status.state, 'running');
});

test('output continues at the byte where the log ends, and execs of disconnected clients are ended', async () => {
  await using node = await place();
  const container = await started(await node.sandboxes.run(kept, never));
  const { guest } = node.parts;
  const stdioOf = (method: string) =>
    guest.calls.findLast((call) => call.method === method)?.params['stdio'] as { readonly stdout: number };
  guest.stream(stdioOf('createContainer').stdout).write('twelve bytes');
  await container.exec({ command: ['sh'], tty: false, stdin: false }, never);
  const { logPath } = container.status;
  while ((await readFile(logPath, 'utf8')) === '') await readFile(logPath);
  await node.end();

  const after = (await node.next()) ?? assert.fail(node.said.join(''));
  const attached = guest.calls.findLast(({ method }) => method === 'attach');
  assert.deepEqual(attached?.params['from'], { stdout: 12, stderr: 0 });
  const killed = guest.calls.findLast(({ method }) => method === 'signalExec');
  assert.deepEqual(killed?.params, { containerId: container.status.id, execId: 'exec-0', signal: 9 });
  guest.stream(stdioOf('attach').stdout).write(' more\n');
  let text = '';
  while (!text.includes('more')) {
    text = '';
    for await (const { bytes } of readLog(logPath, {}, never)) text += Buffer.from(bytes).toString();
  }
  assert.equal(text, 'twelve bytes more\n');
  await after.containers[0]?.exec({ command: ['sh'], tty: false, stdin: false }, never);
  assert.equal(guest.calls.findLast(({ method }) => method === 'startExec')?.params['execId'], 'exec-1');
});

test('volumes of the host stay with their containers, and are removed with the last of them', async () => {
  await using node = await place();
  const shared = join(node.directory, 'shared');
  await mkdir(shared);
  const source = { kind: 'host', path: shared, propagation: 'private' } as const;
  const mounts = [{ source, mountPath: '/mnt', readOnly: false }];
  const one = await started(await node.sandboxes.run(kept, never), { mounts });
  await node.end();

  const after = (await node.next()) ?? assert.fail(node.said.join(''));
  assert.deepEqual(after.containers[0]?.status.mounts, one.status.mounts);
  const two = await started(after, { name: 'two', mounts });
  const volumes = node.parts.guest.calls.filter(({ method }) => method === 'createVolume');
  assert.equal(volumes.length, 1);
  node.parts.guest.tell(exitOf(one.status.id, 0));
  node.parts.guest.tell(exitOf(two.status.id, 0));
  for (const container of after.containers) {
    await container.exited;
    await container.remove(never);
  }
  assert.deepEqual(
    [...node.parts.alive].filter((name) => /^(port|server)/.test(name)),
    [],
  );
});

test('a sandbox whose machine ended meanwhile is listed as failed, with the reason, and its logs', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  const container = await started(before);
  await node.end();
  node.parts.killMachine('QEMU was killed');

  const after = (await node.next()) ?? assert.fail('it is gone');
  assert.equal(after.id, before.id);
  assert.equal(after.status.state, 'failed');
  assert.match(after.status.failure ?? '', /its machine ended while no podvm ran/);
  assert.match(node.said.join(''), /pod not taken over .*its machine ended/);
  const [found] = after.containers;
  assert.equal(found?.status.id, container.status.id);
  assert.equal(found.status.exit?.reason, 'SandboxFailed');
  await readFile(found.status.logPath);
  assert.deepEqual(leftOf(node.parts), []);
  await node.end();
  const later = await node.next();
  assert.equal(later?.status.failure, after.status.failure, 'it is on record');
  assert.deepEqual(later?.containers[0]?.status, found.status);
});

test('a sandbox that was stopped stays on the list, with the ends of its containers', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  const container = await started(before);
  node.parts.guest.tell(exitOf(container.status.id, 9));
  await container.exited;
  await before.stop(0);
  await node.end();
  const after = (await node.next()) ?? assert.fail('it is gone');
  assert.equal(after.status.state, 'stopped');
  assert.deepEqual(after.containers[0]?.status, container.status);
  await assert.rejects(after.createContainer(containerSpec, never), /the sandbox is stopped/);
  await assert.rejects(node.sandboxes.run(kept, never), { kind: 'alreadyExists' });
});

test('a process that does not take over kept sandboxes leaves them and their user ids alone', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run(kept, never);
  await node.end();
  assert.equal(await node.next(() => false), undefined);
  await assert.rejects(node.sandboxes.run({ ...sandboxSpec, name: 'other' }, never), { kind: 'exhausted' });
  await node.end();
  assert.equal((await node.next())?.id, id);
});

test('a pod of podvm itself is taken over alone, and left alone by builds that know no such records', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run({ ...kept, keptFor: 'podvm' }, never);
  const { version } = JSON.parse(await readFile(join(node.root, id, 'sandbox.json'), 'utf8')) as { version: number };
  assert.equal(version, 3);
  await node.end();
  assert.equal(await node.next(({ keptFor }) => keptFor !== 'podvm'), undefined);
  await node.end();
  assert.equal((await node.next(({ keptFor }) => keptFor === 'podvm'))?.id, id);
});

test('a sandbox that is not kept ends with its process', async () => {
  await using node = await place();
  await started(await node.sandboxes.run(sandboxSpec, never));
  await node.end();
  assert.equal(node.parts.alive.has('machine'), false);
  assert.equal(await node.next(), undefined);
});

test('a block device stays with its machine, and is released with it', async () => {
  await using node = await place();
  const disk = join(node.directory, 'disk.img');
  await writeFile(disk, Buffer.alloc(1024));
  const devices = [{ hostPath: disk, devicePath: '/dev/x', readOnly: false }];
  const one = await started(await node.sandboxes.run(kept, never), { devices });
  await node.end();
  const after = (await node.next()) ?? assert.fail('it is gone');
  await started(after, { name: 'two', devices });
  assert.equal(node.parts.guest.calls.filter(({ params }) => params['serial'] === 'block-0').length, 1);
  assert.deepEqual(after.containers[0]?.status.mounts, one.status.mounts);
  await after.remove();
  assert.equal(node.parts.alive.has(`claim ${disk}`), false);
});

test('a pod that runs another kernel than the current one gets no modules', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run(kept, never);
  await node.end();
  const path = join(node.root, id, 'sandbox.json');
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace('"kernel":"6.12.1"', '"kernel":"6.11.0"'));
  const after = (await node.next()) ?? assert.fail(node.said.join(''));
  const security = { ...containerSpec.security, addCapabilities: ['CAP_NET_ADMIN'] };
  await assert.rejects(after.createContainer({ ...containerSpec, security }, never), /its kernel is older/);
  await started(after, { name: 'plain' });
});

test('a container without a record, which no client knows, is removed', async () => {
  await using node = await place();
  await node.sandboxes.run(kept, never);
  await node.end();
  node.parts.guest.answers.set('list', () => ({
    containers: [{ id: 'half-made', pid: 2, execs: [] }],
    volumes: [],
    disks: [],
  }));
  const after = await node.next();
  assert.deepEqual(after?.containers, []);
  assert.deepEqual(node.parts.guest.calls.findLast(({ method }) => method === 'removeContainer')?.params, {
    id: 'half-made',
  });
});

/** Makes the record one of a version that this podvm does not know. Returns how to give back the old one. */
async function makeNewer(root: string, id: string, change: (record: object) => object = (record) => record) {
  const path = join(root, id, 'sandbox.json');
  const text = await readFile(path, 'utf8');
  const newer = JSON.stringify({ ...change(JSON.parse(text) as object), version: recordVersion + 1 });
  await writeFile(path, newer);
  return async () => {
    assert.equal(await readFile(path, 'utf8'), newer, 'the record has changed');
    await writeFile(path, text);
  };
}

test('a sandbox with a record of a newer podvm is left alone, listed with the reason, and taken over by that podvm', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  const main = await started(before);
  await node.end();
  const restore = await makeNewer(node.root, before.id);

  const left = (await node.next()) ?? assert.fail('it is not listed');
  const why = new RegExp(`a newer podvm has written its record \\(version ${recordVersion + 1}`);
  assert.match(node.said.join(''), new RegExp(`sandbox left alone .*${why.source}`));
  const { status } = left;
  assert.deepEqual([status.state, status.addresses], ['ready', before.status.addresses]);
  assert.match(status.leftAlone ?? '', why);
  assert.deepEqual(left.containers[0]?.status, main.status);
  await assert.rejects(left.createContainer(containerSpec, never), why);
  await assert.rejects(left.containers[0].exec({ command: ['sh'], tty: false, stdin: false }, never), why);
  await assert.rejects(node.sandboxes.run(kept, never), { kind: 'alreadyExists' });
  await assert.rejects(node.sandboxes.run({ ...kept, name: 'other' }, never), { kind: 'exhausted' });
  assert.ok(node.parts.alive.has('machine') && node.parts.alive.has('attachment'));
  await node.end();
  await restore();
  const after = await node.next();
  assert.deepEqual([after?.status.state, after?.containers[0]?.status.state], ['ready', 'running']);
});

test('a sandbox that is left alone is named even if only the oldest fields of its record can be read', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run(kept, never);
  await node.end();
  await makeNewer(node.root, id, (record) => ({ ...record, pod: { kind: 'unknown' } }));
  const left = (await node.next()) ?? assert.fail('it is not listed');
  assert.deepEqual([left.spec.namespace, left.spec.name, left.status.state], [kept.namespace, kept.name, 'ready']);
  await left.stop(0);
  assert.equal(node.parts.alive.has('machine'), false);
});

test('a sandbox that is left alone stays that of its client, even if the rest of its pod cannot be read', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run({ ...kept, keptFor: 'containerd' }, never);
  await node.end();
  const spec = { keptFor: 'containerd', volumes: 'of another kind' };
  await makeNewer(node.root, id, (record) => ({ ...record, pod: { spec } }));
  assert.equal((await node.next())?.spec.keptFor, 'containerd');
});

test('a sandbox that is left alone fails when its machine ends, and so do its containers', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  const main = await started(before);
  const over = await started(before, { name: 'over' });
  node.parts.guest.tell(exitOf(over.status.id, 7));
  await over.exited;
  await node.end();
  await makeNewer(node.root, before.id);
  const left = (await node.next()) ?? assert.fail('it is not listed');
  const look = left.containers.map(({ status: { state } }) => state);
  assert.deepEqual(look, ['running', 'exited']);
  node.parts.killMachine('QEMU was killed');
  const { state, failure, leftAlone } = await left.ended;
  assert.deepEqual([state, failure, leftAlone], ['failed', 'QEMU was killed', undefined]);
  const exits = await Promise.all(left.containers.map(({ exited }) => exited));
  assert.deepEqual(
    exits.map(({ exitCode, reason, why }) => ({ exitCode, reason, why })),
    [
      { exitCode: 137, reason: 'SandboxFailed', why: 'QEMU was killed' },
      { exitCode: 7, reason: 'Error', why: undefined },
    ],
  );
  assert.equal(left.containers[0]?.status.id, main.status.id);
  assert.equal(node.parts.alive.has('attachment'), false);
});

test('a sandbox that is left alone and whose machine is gone is listed as failed', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run(kept, never);
  await node.end();
  await makeNewer(node.root, id);
  node.parts.killMachine('QEMU was killed');
  const left = await node.next();
  assert.deepEqual([left?.status.state, left?.status.failure], ['failed', 'its machine ended while no podvm ran']);
});

test('a container of a sandbox that is left alone is stopped together with the machine', async () => {
  await using node = await place();
  const before = await node.sandboxes.run(kept, never);
  await started(before);
  await node.end();
  await makeNewer(node.root, before.id);
  const left = (await node.next()) ?? assert.fail('it is not listed');
  const { exitCode } = (await left.containers[0]?.stop(30_000, never)) ?? assert.fail('no container');
  assert.deepEqual([exitCode, left.status.state], [137, 'stopped']);
  assert.deepEqual(leftOf(node.parts), []);
});

for (const [which, version] of [
  ['of a later version', 0],
  ['of version 1', 1],
] as const) {
  test(`a machine whose agent speaks only a protocol ${which} is left alone, and can be ended`, async () => {
    await using node = await place();
    const before = await node.sandboxes.run(kept, never);
    await started(before);
    await node.end();
    const record = () => readFile(join(node.root, before.id, 'sandbox.json'), 'utf8');
    const written = await record();
    const { guest } = node.parts;
    const { version: common } = guest;
    guest.version = version;
    const left = (await node.next()) ?? assert.fail('it is not listed');
    assert.match(node.said.join(''), /sandbox left alone .*Cannot take over default\/web: its agent speaks another/);
    assert.match(left.status.leftAlone ?? '', /its agent speaks another protocol/);
    assert.deepEqual([left.status.state, left.containers[0]?.status.state], ['ready', 'running']);
    assert.ok(node.parts.alive.has('machine') && node.parts.alive.has('attachment'));
    assert.equal(await record(), written);
    await assert.rejects(node.sandboxes.run({ ...kept, name: 'other' }, never), /user/); // the only one is in use
    await node.end();

    guest.version = common;
    const after = await node.next();
    assert.deepEqual([after?.status.state, after?.containers[0]?.status.state], ['ready', 'running']);
    await node.end();
    guest.version = version;
    assert.equal((await (await node.next())?.stop(0))?.state, 'stopped');
    assert.deepEqual(leftOf(node.parts), []);
  });
}

test('a sandbox whose record is damaged, as by a power cut, is swept', async () => {
  await using node = await place();
  await node.end();
  await mkdir(join(node.root, 'sb-torn', 'machine'), { recursive: true });
  await writeFile(join(node.root, 'sb-torn', 'sandbox.json'), '{"version":2,"id":"sb-');
  assert.equal(await node.next(), undefined);
  assert.match(node.said.join(''), /record of a sandbox is damaged/);
  assert.deepEqual(await readdir(node.root), []);
});

test('records contain no command, variable, login or file of a volume', async () => {
  await using node = await place();
  const volumes = [
    { name: 'keys', kind: 'push', files: [{ path: 'key', bytes: Buffer.from('hidden-1'), mode: 0o600 }] },
  ] as const;
  const { id } = await node.sandboxes.run({ ...kept, volumes }, never);
  const [sandbox] = node.sandboxes.list();
  await started(sandbox ?? assert.fail(), {
    command: ['sh', 'hidden-2'],
    args: ['hidden-3'],
    env: [{ name: 'A', value: 'hidden-4' }],
    pullLogins: [{ registry: 'hidden-5', username: 'hidden-6', password: 'hidden-7' }] as never,
  });
  await node.end(); // with its last records written
  const files = await readdir(join(node.root, id), { recursive: true, withFileTypes: true });
  for (const file of files.filter((entry) => entry.isFile() && !entry.parentPath.endsWith('/machine'))) {
    assert.doesNotMatch(await readFile(join(file.parentPath, file.name), 'utf8'), /hidden|aGlkZGVu/);
  }
  await node.next();
});

test('what ended file servers have counted stays on record from process to process', async () => {
  await using node = await place();
  const { id } = await node.sandboxes.run(kept, never);
  await node.end();
  const path = join(node.root, id, 'sandbox.json');
  const read = async () => JSON.parse(await readFile(path, 'utf8')) as { readonly pod: { endedRequests?: unknown } };
  const record = await read();
  const reading = { buckets: [{ upTo: 1, count: 2 }], count: 3, sum: 0.5 };
  const kinds = ['look', 'read', 'write', 'change', 'flush', 'other'].map((kind) => [kind, reading] as const);
  record.pod.endedRequests = Object.fromEntries(kinds);
  await writeFile(path, JSON.stringify(record));
  for (const _ of ['first', 'second']) {
    assert.ok(await node.next(), node.said.join(''));
    assert.deepEqual((await read()).pod.endedRequests, record.pod.endedRequests);
    await node.end();
  }
  await node.next();
});
