import assert from 'node:assert/strict';
import { mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log.ts';
import { Heartbeat } from '#link/heartbeat.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts, type FakeParts } from './testing/fake-parts.ts';
import { defaultLimits } from './limits.ts';
import { readLog } from './log/read-log.ts';
import type { Container, Sandbox, SandboxSpec } from './sandbox.ts';
import { openSandboxes } from './sandboxes.ts';
import { untilAborted } from '#host/until-aborted.ts';

const never = new AbortController().signal;
const limits = {
  ...defaultLimits,
  userIds: { first: 1000, count: 1 },
  killAnswerMs: 200,
  killTimeoutMs: 200,
  lastWordsMs: 50,
  drainTimeoutMs: 200,
};
const is = (kind: string) => (error: unknown) => error instanceof PodvmError && error.kind === kind;

/** A set of sandboxes on fakes, of which nothing may be left at its end. */
async function node(vary: Partial<typeof limits> = {}, around = (parts: FakeParts) => parts) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-sandboxes-'));
  const parts = around(createFakeParts(directory));
  const all = { ...limits, ...vary };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits: all }, never);
  return {
    directory,
    parts,
    sandboxes,
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      await assertNothingLeft(directory, parts);
      await rm(directory, { recursive: true });
    },
  };
}

async function assertNothingLeft(directory: string, parts: FakeParts): Promise<void> {
  assert.deepEqual([...parts.alive], []);
  assert.deepEqual(await readdir(join(directory, 'sandboxes')), []);
}

const withVolumes: SandboxSpec = {
  ...sandboxSpec,
  volumes: [
    { name: 'data', kind: 'scratch' },
    { name: 'small', kind: 'scratch', sizeLimitBytes: 1024 * 1024 },
    { name: 'page', kind: 'push', files: [{ path: 'a/index.html', bytes: Buffer.from('hi'), mode: 0o644 }] },
  ],
};

const steps = [
  'network.prepare',
  'scratch',
  'driver.start',
  'link.connect',
  'network.connect',
  'machine.attachDisk',
  'call configure',
  'call connect',
  'call attachDisk',
  'volume disk',
  'call createVolume',
  'call beginPush',
  'call pushFile',
  'call commitPush',
];

const startedContainer = async (sandbox: Sandbox, parts: FakeParts) => {
  const container = await sandbox.createContainer(containerSpec, never);
  await container.start(never);
  const exit = (exitCode: number, more: object = {}) =>
    parts.guest.tell({
      kind: 'exited',
      containerId: container.status.id,
      exitCode,
      oomKilled: false,
      finishedAtMs: 2000,
      ...more,
    });
  const create = parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  assert.ok(create);
  const { stdout, stderr } = create.params['stdio'] as { stdout: number; stderr: number };
  const output = { stdout: parts.guest.stream(stdout), stderr: parts.guest.stream(stderr) };
  return { container, exit, output };
};

test('run() refuses a volume that is too large for the guest before it makes a machine', async () => {
  await using place = await node();
  const { parts, sandboxes, directory } = place;
  const files = [{ path: 'key', bytes: new Uint8Array(16 * 1024 * 1024 + 1), mode: 0o644 }];
  await assert.rejects(
    sandboxes.run({ ...sandboxSpec, volumes: [{ name: 'huge', kind: 'push', files }] }, never),
    /volume huge: .* at most 16777216 bytes, got 16777217$/,
  );
  await assertNothingLeft(directory, parts);
});

for (const step of steps) {
  test(`run() leaves nothing when ${step} fails`, async () => {
    await using place = await node();
    const { parts, sandboxes, directory } = place;
    parts.before = async (each) => {
      if (each === step) throw new PodvmError('internal', `${step} failed`);
    };
    await assert.rejects(sandboxes.run(withVolumes, never), new RegExp(`${step} failed`));
    await assertNothingLeft(directory, parts);
    assert.deepEqual(sandboxes.list(), []);
    parts.before = async () => {};
    await sandboxes.run(withVolumes, never); // name, user id and directory are free again
  });

  test(`run() leaves nothing when it is aborted in ${step}`, async () => {
    await using place = await node();
    const { parts, sandboxes, directory } = place;
    for (const finishesLate of [false, true]) {
      const stop = new AbortController();
      parts.before = async (each, signal) => {
        if (each !== step) return;
        stop.abort();
        if (!finishesLate) signal.throwIfAborted();
      };
      await assert.rejects(sandboxes.run(withVolumes, stop.signal), (error) => kindOf(error) === 'cancelled');
      await assertNothingLeft(directory, parts);
    }
  });
}

for (const step of steps.slice(3)) {
  test(`run() says why, and leaves nothing, when the machine dies in ${step}`, async () => {
    await using place = await node();
    const { parts, sandboxes, directory } = place;
    const started = Promise.withResolvers<void>();
    parts.before = async (each, signal) => {
      if (each === 'link.connect') started.resolve();
      if (each !== step) return;
      await started.promise; // a network is connected beside the start
      parts.killMachine('QEMU was killed by SIGKILL');
      await untilAborted(new Promise(() => {}), signal); // it waits for an answer
    };
    await assert.rejects(sandboxes.run(withVolumes, never), (error) => {
      assert.ok(is('unavailable')(error));
      assert.match(String(error), /Cannot start the sandbox: QEMU was killed by SIGKILL/);
      return true;
    });
    await assertNothingLeft(directory, parts);
  });
}

test('run() refuses a name in use, also while that sandbox starts', async () => {
  await using place = await node({ userIds: { first: 1000, count: 2 } });
  const { parts, sandboxes } = place;
  const open = Promise.withResolvers<void>();
  parts.before = (step) => (step === 'driver.start' ? open.promise : Promise.resolve());
  const first = sandboxes.run(sandboxSpec, never);
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  open.resolve();
  const sandbox = await first;
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  await sandbox.stop(0);
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists')); // its logs are still there
  await sandbox.remove();
  assert.equal(sandboxes.get('default', 'web'), undefined);
});

test('run() refuses limits that cannot work before it makes anything', async () => {
  await using place = await node();
  const { sandboxes, parts } = place;
  await assert.rejects(sandboxes.run({ ...sandboxSpec, resources: { memoryLimitBytes: 4096 } }, never), is('invalid'));
  await assertNothingLeft(place.directory, parts);
});

test('run() refuses when the disk is full', async () => {
  await using place = await node({ minFreeBytes: Number.MAX_SAFE_INTEGER });
  await assert.rejects(place.sandboxes.run(sandboxSpec, never), is('exhausted'));
});

test('run() is refused as exhausted whichever step finds out that the disk is full', async () => {
  await using place = await node();
  const { parts, sandboxes, directory } = place;
  for (const step of ['network.prepare', 'network.connect', 'scratch']) {
    parts.before = async (each) => {
      if (each === step) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    };
    await assert.rejects(sandboxes.run(sandboxSpec, never), (error) => kindOf(error) === 'exhausted');
    await assertNothingLeft(directory, parts);
  }
});

test('openSandboxes() refuses a directory that another one works in', async () => {
  await using place = await node();
  const { directory, parts } = place;
  await assert.rejects(openSandboxes({ directory, parts, log: silentLog }, never), is('busy'));
});

test('a container runs, exits with its code and tells its termination message', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  assert.equal(container.status.state, 'running');
  place.parts.guest.answers.set('readFile', () => ({
    data: Buffer.from('out of luck').toString('base64'),
    truncated: false,
  }));
  exit(7);
  const { exitCode, reason, message } = await container.exited;
  assert.deepEqual(
    { exitCode, reason, message: String(message) },
    { exitCode: 7, reason: 'Error', message: 'out of luck' },
  );
  assert.equal(container.status.state, 'exited');
});

const told = (container: Container, text: string) =>
  ({
    kind: 'terminationMessage',
    containerId: container.status.id,
    data: Buffer.from(text).toString('base64'),
  }) as const;

test('a container whose machine dies tells the last message that the guest has told, and why the machine died', async () => {
  await using place = await node();
  const { parts } = place;
  const { container } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), parts);
  for (const text of ['first', 'last']) parts.guest.tell(told(container, text));
  parts.killMachine('QEMU was killed by SIGKILL');
  const { reason, why, message } = await container.exited;
  assert.deepEqual([reason, why, String(message)], ['SandboxFailed', 'QEMU was killed by SIGKILL', 'last']);
});

test('a container whose message cannot be read at its end tells the last one that the guest has told', async () => {
  await using place = await node();
  const { parts } = place;
  const { container, exit } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), parts);
  parts.guest.tell(told(container, 'told'));
  parts.guest.answers.set('readFile', () => {
    throw new PodvmError('unavailable', 'the link is lost');
  });
  exit(7);
  const { exitCode, why, message } = await container.exited;
  assert.deepEqual([exitCode, why, String(message)], [7, undefined, 'told']);
});

test('a container that was killed for lack of memory says so', async () => {
  await using place = await node();
  const { container, exit } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), place.parts);
  exit(137, { oomKilled: true, signal: 9 });
  assert.equal((await container.exited).reason, 'OOMKilled');
});

test('a command that cannot run gives a container that has exited with StartError', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  place.parts.guest.answers.set('createContainer', () => {
    throw new PodvmError('failedPrecondition', 'crun: executable file `nope` not found in $PATH');
  });
  const container = await sandbox.createContainer(containerSpec, never);
  const exit = await container.exited;
  assert.deepEqual([exit.exitCode, exit.reason], [127, 'StartError']);
  assert.match(exit.why ?? '', /executable file `nope` not found/);
  await assert.rejects(container.start(never), /Cannot start container main: .*not found/);
});

test('createContainer() leaves nothing behind when the image is missing', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await assert.rejects(sandbox.createContainer({ ...containerSpec, image: 'missing' }, never), is('notFound'));
  assert.deepEqual(sandbox.status.containers, []);
  await sandbox.createContainer(containerSpec, never);
});

const sharing = (path: string, name = 'main') => ({
  ...containerSpec,
  name,
  mounts: [
    { source: { kind: 'host', path, propagation: 'private' } as const, mountPath: '/mnt', readOnly: false } as const,
  ],
});

test('createContainer() leaves nothing of a shared volume when any of its steps fails or is aborted', async () => {
  await using place = await node();
  const { parts, directory } = place;
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const shared = () => [...parts.alive].filter((name) => /^(port|server)/.test(name));
  for (const step of ['machine.attachPort', 'serveFiles', 'call createVolume', 'call createContainer']) {
    for (const how of ['fails', 'is aborted'] as const) {
      const stop = new AbortController();
      parts.before = async (name, signal) => {
        if (name === step && how === 'fails') throw new PodvmError('internal', `no ${step}`);
        if (name === step) stop.abort();
        signal.throwIfAborted();
      };
      await assert.rejects(sandbox.createContainer(sharing(directory), stop.signal), `${step} ${how}`);
      parts.before = async (_name, signal) => signal.throwIfAborted();
      assert.deepEqual(shared(), [], `${step} ${how}`);
    }
  }
});

test('a shared volume is taken away when its last container is removed: from the guest, its server, its port', async () => {
  await using place = await node();
  const { parts, directory } = place;
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const [one, other] = [
    await sandbox.createContainer(sharing(directory, 'one'), never),
    await sandbox.createContainer(sharing(directory, 'other'), never),
  ];
  const isShared = () => [...parts.alive].some((name) => name.startsWith('server'));
  const seen: string[] = [];
  parts.before = async (name) => {
    if (/removeVolume|detachPort/.test(name)) seen.push(`${name} ${isShared() ? 'before' : 'after'} the server's end`);
  };
  await one.stop(0, never);
  await one.remove(never);
  assert.ok(isShared());
  await other.stop(0, never);
  await other.remove(never);
  assert.deepEqual(seen, ["call removeVolume before the server's end", "machine.detachPort after the server's end"]);
});

test('a shared volume goes with its sandbox, also when the guest does not let it go', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await sandbox.createContainer(sharing(place.directory), never);
  place.parts.guest.answers.set('removeVolume', () => {
    throw new PodvmError('busy', 'something uses it');
  });
  assert.equal((await sandbox.stop(0)).state, 'stopped');
  await sandbox.remove();
});

test('createContainer() attaches one image once, and refuses the same attempt twice', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await Promise.all(['a', 'b', 'c'].map((name) => sandbox.createContainer({ ...containerSpec, name }, never)));
  const attached = place.parts.guest.calls.filter(({ params }) => params['fileSystem'] === 'erofs');
  assert.equal(attached.length, 1);
  await assert.rejects(sandbox.createContainer({ ...containerSpec, name: 'a' }, never), is('alreadyExists'));
});

test('createContainer() attaches the modules once, for containers that administer the network, and gives none the right to load', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const given = async (name: string, security: Partial<typeof containerSpec.security>) => {
    await sandbox.createContainer(
      { ...containerSpec, name, security: { ...containerSpec.security, ...security } },
      never,
    );
    const { params } = place.parts.guest.calls.findLast(({ method }) => method === 'createContainer') ?? assert.fail();
    const { capabilities } = params['process'] as { capabilities: string[] }; // SAFE: the wire's schema
    return [params['modulesDisk'], capabilities.includes('CAP_NET_ADMIN'), capabilities.includes('CAP_SYS_MODULE')];
  };
  assert.deepEqual(await given('plain', { addCapabilities: ['SYS_MODULE'] }), [undefined, false, false]);
  assert.deepEqual(await given('mesh', { addCapabilities: ['NET_ADMIN'] }), ['modules', true, false]);
  assert.deepEqual(await given('all', { privileged: true }), ['modules', true, false]);
  const attached = place.parts.guest.calls.filter(({ params }) => params['serial'] === 'modules');
  assert.equal(attached.length, 1);
});

test('createContainer() leaves a container its right to load modules where the pod’s machine is open', async () => {
  await using place = await node();
  const annotations = { 'podvm.dev/kernel-modules': 'open' };
  const sandbox = await place.sandboxes.run({ ...sandboxSpec, annotations }, never);
  const security = { ...containerSpec.security, privileged: true };
  await sandbox.createContainer({ ...containerSpec, security }, never);
  const params = place.parts.guest.calls.findLast(({ method }) => method === 'createContainer')?.params ?? {};
  assert.match(JSON.stringify(params['process']), /CAP_SYS_MODULE/);
});

test('run() gives every pod low ports and ping, and its own sysctls over that', async () => {
  await using place = await node();
  const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '1024', 'net.core.somaxconn': '1' };
  await place.sandboxes.run({ ...sandboxSpec, sysctls }, never);
  const connect = place.parts.guest.calls.find(({ method }) => method === 'connect');
  assert.deepEqual(connect?.params['sysctls'], { ...sysctls, 'net.ipv4.ping_group_range': '0 2147483647' });
});

test('output is byte-exact in log and follower', async () => {
  await using place = await node();
  const { container, exit, output } = await startedContainer(
    await place.sandboxes.run(sandboxSpec, never),
    place.parts,
  );
  let followed = '';
  const follower = container.follow(async ({ bytes }) => {
    followed += Buffer.from(bytes).toString('latin1');
  });
  output.stdout.end('one\ntwo');
  output.stderr.end();
  exit(0);
  await Promise.all([container.exited, follower.ended]);
  assert.equal(followed, 'one\ntwo');
  let logged = '';
  for await (const { bytes } of readLog(container.status.logPath, {}, never)) logged += Buffer.from(bytes).toString();
  assert.equal(logged, 'one\ntwo');
});

test('a container logs where its spec says, and only what runs can be told to reopen its log', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const logPath = join(place.directory, 'elsewhere/main/0.log');
  const container = await sandbox.createContainer({ ...containerSpec, logPath }, never);
  assert.equal(container.status.logPath, logPath);
  await rename(logPath, `${logPath}.1`);
  await container.reopenLog();
  assert.deepEqual((await readdir(join(place.directory, 'elsewhere/main'))).sort(), ['0.log', '0.log.1']);
  await container.stop(0, never);
  await assert.rejects(container.reopenLog(), is('failedPrecondition'));
});

test('update() checks limits before the guest is asked', async () => {
  await using place = await node();
  const { container } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), place.parts);
  await assert.rejects(container.update({ memoryLimitBytes: 5 }, never), is('invalid'));
  await container.update({ memoryLimitBytes: 2 ** 24, cpuLimitMillis: 500 }, never);
  const asked = place.parts.guest.calls.filter(({ method }) => method === 'updateContainer');
  assert.deepEqual(
    asked.map(({ params }) => params['resources']),
    [{ memoryLimitBytes: 2 ** 24, cpuQuotaUs: 50_000, cpuPeriodUs: 100_000 }],
  );
});

test('exec() gives the exit code, and refuses a container that does not run', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  const ls = { command: ['ls'], tty: false, stdin: false };
  const exec = await container.exec(ls, never);
  exit(3, { execId: 'exec-0' });
  assert.deepEqual(await exec.exited, { exitCode: 3 });
  assert.equal(container.status.state, 'running');
  exit(0);
  await container.exited;
  await assert.rejects(container.exec(ls, never), is('failedPrecondition'));
});

test('stop() asks the container first and kills it after its grace', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  const signals: unknown[] = [];
  place.parts.guest.answers.set('signalContainer', ({ signal }) => {
    signals.push(signal);
    if (signal === 9) exit(137, { signal: 9 });
  });
  const status = await sandbox.stop(20);
  assert.deepEqual(signals, [15, 9]);
  assert.equal(status.state, 'stopped');
  assert.deepEqual([...place.parts.alive], []);
  assert.equal(container.status.exit?.exitCode, 137);
});

test('a second stop() without grace cuts the first one short', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { exit } = await startedContainer(sandbox, place.parts);
  const asked = Promise.withResolvers<void>();
  place.parts.guest.answers.set('signalContainer', ({ signal }) => {
    if (signal === 9) exit(137, { signal: 9 });
    else asked.resolve();
  });
  const first = sandbox.stop(3_600_000);
  await asked.promise;
  const second = sandbox.stop(0);
  assert.equal((await first).state, 'stopped');
  assert.deepEqual(await second, await first);
});

test('a container that no signal ends does not hold the stop', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container } = await startedContainer(sandbox, place.parts);
  place.parts.guest.answers.set('signalContainer', () => undefined);
  assert.equal((await sandbox.stop(0)).state, 'stopped');
  assert.equal((await container.exited).reason, 'SandboxFailed');
});

const deaths: readonly (readonly [string, (parts: FakeParts) => void, RegExp])[] = [
  ['its machine dies', (parts) => parts.killMachine('QEMU was killed by SIGKILL'), /QEMU was killed by SIGKILL/],
  [
    'its link is lost',
    (parts) => parts.tearLink(),
    /the link to the agent is lost: Cannot use the channel to the agent: it has ended/,
  ],
];
for (const [what, cause, why] of deaths) {
  test(`a sandbox fails, settles everything and frees everything when ${what}`, async () => {
    await using place = await node();
    const sandbox = await place.sandboxes.run(sandboxSpec, never);
    const { container } = await startedContainer(sandbox, place.parts);
    const exec = await container.exec({ command: ['sleep'], tty: false, stdin: false }, never);
    const follower = container.follow(async () => {});
    cause(place.parts);
    const status = await sandbox.ended;
    assert.equal(status.state, 'failed');
    assert.match(status.failure ?? '', why);
    assert.deepEqual([...place.parts.alive], []);
    assert.equal((await container.exited).reason, 'SandboxFailed');
    await Promise.all([exec.exited, follower.ended]);
    await assert.rejects(sandbox.createContainer({ ...containerSpec, attempt: 1 }, never), is('failedPrecondition'));
    assert.equal((await sandbox.stop(1000)).state, 'failed');
    assert.ok((await readdir(join(place.directory, 'sandboxes'))).length === 1); // its logs stay
  });
}

test('a sandbox whose network is lost fails with the reason, and no other does', async () => {
  let lost = '';
  await using place = await node({ mendIntervalMs: 10, userIds: { first: 1000, count: 2 } }, (parts) => {
    parts.network.mend = async (pods) =>
      new Map(pods.flatMap(({ sandboxId }) => (sandboxId === lost ? [[sandboxId, 'tap0 was deleted']] : [])));
    return parts;
  });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const other = await place.sandboxes.run({ ...sandboxSpec, name: 'other' }, never);
  lost = sandbox.id;
  const { state, failure } = await sandbox.ended;
  assert.deepEqual([state, failure], ['failed', 'the pod has lost its network: tap0 was deleted']);
  assert.equal(other.status.state, 'ready');
});

test('a stop of a container whose machine does not answer ends with the machine, and the sandbox fails', async () => {
  const heartbeat = new Heartbeat({ lookMs: 20, quietMs: 40, answerMs: 40, patienceMs: 100 });
  await using place = await node({ killAnswerMs: 5_000 }, (parts) => {
    const connect = parts.connectLink.bind(parts);
    parts.connectLink = (options, signal) => connect({ ...options, heartbeat }, signal);
    return parts;
  });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container } = await startedContainer(sandbox, place.parts);
  place.parts.guest.hang();
  const exit = await container.stop(50, never);
  assert.equal(exit.reason, 'SandboxFailed');
  assert.match(exit.why ?? '', /^the machine has not answered for \d+ s$/);
  const status = await sandbox.ended;
  assert.equal(status.state, 'failed');
  assert.match(status.failure ?? '', /^the machine has not answered for/);
  assert.deepEqual([...place.parts.alive], []);
});

test('a sandbox that cannot be undone has failed, keeps its name, and is undone by the remove() that can', async () => {
  await using place = await node();
  const { parts, sandboxes } = place;
  const make = parts.makeScratchDisk.bind(parts);
  let isStuck = true;
  parts.makeScratchDisk = async (request, signal) => {
    const disk = await make(request, signal);
    return {
      path: disk.path,
      sizeBytes: disk.sizeBytes,
      async [Symbol.asyncDispose]() {
        if (isStuck) throw new PodvmError('busy', 'the disk is in use');
        await disk[Symbol.asyncDispose]();
      },
    };
  };
  const sandbox = await sandboxes.run(sandboxSpec, never);
  const { state, failure } = await sandbox.stop(0);
  assert.deepEqual([state, failure], ['failed', 'the disk is in use']);
  assert.deepEqual([...parts.alive], ['scratch']);
  await assert.rejects(sandbox.remove(), is('busy'));
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  isStuck = false;
  await sandbox.remove();
  await assertNothingLeft(place.directory, parts);
});

test('a creation under way ends when the sandbox is stopped', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const pulling = Promise.withResolvers<void>();
  place.parts.before = (step, signal) =>
    new Promise((resolve, reject) => {
      if (step !== 'image') return resolve();
      pulling.resolve();
      return signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  const creating = sandbox.createContainer(containerSpec, never);
  await pulling.promise;
  const stopped = sandbox.stop(0);
  await assert.rejects(creating, is('cancelled'));
  assert.equal((await stopped).state, 'stopped');
});

test('updateVolume() sends a whole new version, and refuses paths that lead out', async () => {
  await using place = await node();
  const sandbox = await place.sandboxes.run(withVolumes, never);
  const file = { path: 'b', bytes: new Uint8Array(100_000), mode: 0o600 };
  await sandbox.updateVolume('page', [file], never);
  const methods = place.parts.guest.calls.slice(-4).map(({ method }) => method);
  assert.deepEqual(methods, ['beginPush', 'pushFile', 'pushFile', 'commitPush']);
  await assert.rejects(sandbox.updateVolume('page', [{ ...file, path: '../x' }], never), is('invalid'));
  await assert.rejects(sandbox.updateVolume('data', [file], never), is('failedPrecondition'));
  await assert.rejects(sandbox.updateVolume('none', [file], never), is('notFound'));
});

test('upgrade() gives new sandboxes the new parts; the old ones are unused when the last sandbox of them is removed', async () => {
  await using there = await node({ userIds: { first: 1000, count: 3 } });
  const { sandboxes, parts } = there;
  const old = await sandboxes.run(sandboxSpec, never);
  const versions = { ...parts.versions, key: 'k2', qemu: '1:10.1' };
  const { unused } = await sandboxes.upgrade({ ...parts, versions }, never);
  let isUnused = false;
  void unused.then(() => {
    isUnused = true;
  });
  const newer = await sandboxes.run({ ...sandboxSpec, name: 'newer' }, never);
  assert.deepEqual([old.status.parts.qemu, newer.status.parts.qemu], ['1:10.0', '1:10.1']);
  assert.equal(old.status.state, 'ready');
  assert.equal(isUnused, false);
  await old.remove();
  await unused;
  assert.equal(newer.status.state, 'ready');
});

test('upgrade() to parts of which no template can be made changes nothing, and says so', async () => {
  await using there = await node({ userIds: { first: 1000, count: 3 } });
  const { sandboxes, parts } = there;
  await (await sandboxes.run(sandboxSpec, never)).remove();
  const driver = {
    ...parts.driver,
    hasTemplate: async () => false,
    makeTemplate: () => Promise.reject(new PodvmError('internal', 'this kernel does not boot')),
  };
  const versions = { ...parts.versions, key: 'k2' };
  await assert.rejects(sandboxes.upgrade({ ...parts, driver, versions }, never), is('failedPrecondition'));
  const sandbox = await sandboxes.run(sandboxSpec, never);
  assert.equal(sandbox.status.parts.key, 'k1');
});

test('an upgrade with no sandbox leaves the old parts unused at once', async () => {
  await using there = await node();
  const { unused } = await there.sandboxes.upgrade(there.parts, never);
  await unused;
});
