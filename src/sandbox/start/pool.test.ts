import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { containerSpec, sandboxSpec } from '../testing/examples.ts';
import { createFakeParts, type FakeParts } from '../testing/fake-parts.ts';
import { defaultLimits } from '../limits.ts';
import type { ContainerSpec, Sandbox, SandboxSpec } from '../sandbox.ts';
import { openSandboxes } from '../sandboxes.ts';

const never = new AbortController().signal;

async function openWithPool(poolSize: number, prepare: (parts: FakeParts) => void = () => {}) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-pool-'));
  const parts = createFakeParts(directory);
  prepare(parts);
  const memory = { availableBytes: Number.MAX_SAFE_INTEGER, hasDescriptors: true, isReadable: true };
  const surroundings = {
    nowMs: () => Date.now(),
    // A hundred times as fast: the pool waits for some seconds after a start until it makes a machine.
    monotonicNs: () => process.hrtime.bigint() * 100n,
    randomBytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)),
    async availableBytes() {
      if (memory.isReadable) return memory.availableBytes;
      throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
    },
    idleMs: () => Promise.resolve(0),
    hasDescriptors: () => memory.hasDescriptors,
  };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, surroundings, poolSize }, never);
  const directories = () => readdir(join(directory, 'sandboxes'));
  return {
    parts,
    sandboxes,
    memory,
    directories,
    /** Waits until this many sandboxes and spares have a directory. */
    async untilDirectories(count: number): Promise<readonly string[]> {
      for (;;) {
        await sandboxes.warmUp('pool', never);
        const found = await directories();
        if (found.length === count) return found;
      }
    },
    record: async ({ id }: Sandbox) =>
      JSON.parse(await readFile(join(directory, 'sandboxes', id, 'sandbox.json'), 'utf8')) as Record<string, unknown>,
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      assert.deepEqual([...parts.alive], []);
      assert.deepEqual(await directories(), []);
      await rm(directory, { recursive: true });
    },
  };
}

const named = (name: string, more: Partial<SandboxSpec> = {}): SandboxSpec => ({ ...sandboxSpec, name, ...more });

test('a pod gets a waiting machine under its own name, and another is made', async () => {
  await using node = await openWithPool(1);
  const [spare] = await node.untilDirectories(1);
  const sandbox = await node.sandboxes.run(named('web'), never);
  assert.equal(sandbox.id, spare);
  assert.equal((await node.record(sandbox))['name'], 'web');
  await node.untilDirectories(2);
});

test('the timeline of a start has its steps; of a start from the pool, only the remaining ones', async () => {
  const phasesOf = async (poolSize: number) => {
    await using node = await openWithPool(poolSize);
    await node.untilDirectories(poolSize);
    const { status } = await node.sandboxes.run(named('web'), never);
    return new Set(status.phases.map(({ name }) => name));
  };
  const ofPod = ['turn came', 'images plugged', 'guest configured', 'volumes made', 'network connected'];
  const ofMachine = ['directory made', 'network prepared', 'scratch disk made', 'machine started', 'agent answered'];
  const fromPool = ['pod recorded', 'machine limited'];
  const [made, taken] = [await phasesOf(0), await phasesOf(1)];
  for (const name of ofPod) assert.ok(made.has(name) && taken.has(name), name);
  for (const name of ofMachine) assert.ok(made.has(name) && !taken.has(name), name);
  for (const name of fromPool) assert.ok(!made.has(name) && taken.has(name), name);
});

test('no machine is handed out twice, and an empty pool delays no start', async () => {
  await using node = await openWithPool(2);
  const spares = await node.untilDirectories(2);
  const sandboxes = await Promise.all(['a', 'b', 'c', 'd'].map((name) => node.sandboxes.run(named(name), never)));
  const ids = sandboxes.map(({ id }) => id);
  assert.equal(new Set(ids).size, 4);
  assert.deepEqual(new Set(ids.filter((id) => spares.includes(id))), new Set(spares));
});

const others: Record<string, Partial<SandboxSpec>> = {
  'that has no network': { network: 'none' },
  'that wants a machine of its own': { template: 'off' },
  "that shares with its namespace's pods alone": { template: 'namespace' },
  'whose scratch disk has another size': { resources: { ephemeralStorageBytes: 64 * 1024 * 1024 } },
};
for (const [which, spec] of Object.entries(others)) {
  test(`a pod ${which} gets a machine made for it`, async () => {
    await using node = await openWithPool(1);
    const spares = await node.untilDirectories(1);
    const sandbox = await node.sandboxes.run(named('web', spec), never);
    assert.ok(!spares.includes(sandbox.id));
  });
}

test('pods that start together while memory is short all wait until the waiting machine has given its memory back', async () => {
  await using node = await openWithPool(1);
  await node.untilDirectories(1);
  const [spare] = node.parts.alive;
  const availableBytes = () => (spare !== undefined && node.parts.alive.has(spare) ? 0 : Number.MAX_SAFE_INTEGER);
  Object.defineProperty(node.memory, 'availableBytes', { get: availableBytes });
  await Promise.all(['a', 'b', 'c'].map((name) => node.sandboxes.run(named(name), never)));
});

test('a machine that is still being made for the pool gives its memory back, too, when a pod needs it', async () => {
  const begun = Promise.withResolvers<unknown>();
  await using node = await openWithPool(1, (parts) => {
    parts.before = async (step, signal) => {
      if (step !== 'link.connect') return;
      begun.resolve(undefined);
      await untilAborted(new Promise(() => {}), signal); // a guest that does not answer
    };
  });
  await begun.promise;
  node.parts.before = async (_step, signal) => signal.throwIfAborted();
  const [spare] = node.parts.alive;
  const availableBytes = () => (spare !== undefined && node.parts.alive.has(spare) ? 0 : Number.MAX_SAFE_INTEGER);
  Object.defineProperty(node.memory, 'availableBytes', { get: availableBytes });
  const sandbox = await node.sandboxes.run(named('web'), never);
  assert.deepEqual(await node.directories(), [sandbox.id]);
});

const favourites: Record<string, Partial<ContainerSpec>> = {
  image: {},
  'snapshot of containerd': { rootfs: ['/snapshots/1/fs'], command: ['run'] },
};
for (const [which, spec] of Object.entries(favourites)) {
  test(`a machine waits with the favourite ${which}, and is replaced when that is removed`, async () => {
    await using node = await openWithPool(1);
    await node.untilDirectories(1);
    const done: string[] = [];
    node.parts.before = async (step) => void done.push(step);
    const start = async (name: string) => {
      const sandbox = await node.sandboxes.run(named(name), never);
      await sandbox.createContainer({ ...containerSpec, ...spec }, never);
      await node.sandboxes.warmUp('pool', never);
      return sandbox;
    };
    const plugs = () => done.splice(0).filter((step) => step === 'machine.attachDisk').length;
    const ofSpare = ['scratch disk', 'image of the exercise', 'image of the first pod'].length;
    await start('first');
    assert.equal(plugs(), 1 + ofSpare);
    await start('second');
    assert.equal(plugs(), 0 + ofSpare);
    for (const sandbox of [...node.sandboxes.list()]) await sandbox.remove();
    const [spare] = await node.untilDirectories(1);
    for (const { id } of node.parts.images.list()) await node.parts.images.remove(id);
    for (let found = spare; found === spare; [found] = await node.untilDirectories(1));
  });
}

test('the next machine waits with the images of all pods that take turns, and is taken before older ones', async () => {
  await using node = await openWithPool(2);
  await node.untilDirectories(2);
  const start = async (name: string, image: string) => {
    const done: string[] = [];
    const created = Promise.withResolvers<void>();
    node.parts.before = async (step, signal) => {
      if (step === 'driver.start') await untilAborted(created.promise, signal); // of the next machine
      done.push(step);
    };
    const sandbox = await node.sandboxes.run(named(name), never);
    await sandbox.createContainer({ ...containerSpec, image }, never);
    node.parts.before = async () => {};
    created.resolve();
    await node.sandboxes.warmUp('pool', never);
    return done.filter((step) => /^machine\.(attach|empty)Disk/.test(step)).toSorted();
  };
  assert.deepEqual(await start('first', 'one'), ['machine.attachDisk']);
  assert.deepEqual(await start('second', 'two'), ['machine.attachDisk', 'machine.emptyDisk image-0']);
  assert.deepEqual(await start('third', 'one'), ['machine.emptyDisk image-0']);
  assert.deepEqual(await start('fourth', 'two'), ['machine.emptyDisk image-0']);
});

test('an image that cannot be attached ahead costs one machine, until a pod begins with it again', async () => {
  await using node = await openWithPool(1);
  await node.untilDirectories(1);
  const start = async (name: string, hasFault: boolean) => {
    const created = Promise.withResolvers<void>();
    let disks = 0;
    node.parts.before = async (step, signal) => {
      if (step === 'driver.start') {
        await untilAborted(created.promise, signal);
        disks = 0;
      }
      if (step === 'machine.attachDisk') disks += 1;
      // After the disks of scratch and exercise.
      if (step === 'machine.attachDisk' && disks === 3 && hasFault) throw new PodvmError('timeout', 'no answer');
    };
    const sandbox = await node.sandboxes.run(named(name), never);
    await sandbox.createContainer(containerSpec, never);
    created.resolve();
    await node.sandboxes.warmUp('pool', never);
    return { id: sandbox.id, disks: () => disks };
  };
  const first = await start('first', true);
  assert.equal(first.disks(), 3);
  assert.deepEqual(await node.directories(), [first.id], 'the machine is not kept');
  await node.sandboxes.warmUp('pool', never);
  assert.equal(first.disks(), 2);
  assert.equal((await node.directories()).length, 2, 'the next one is made without the image');
  const second = await start('second', false);
  assert.equal(second.disks(), 3);
  assert.equal((await node.directories()).length, 3);
});

test('an image that the pod cannot mount is not given to the next machine', async () => {
  await using node = await openWithPool(1);
  await node.untilDirectories(1);
  const tried = Promise.withResolvers<void>();
  const made: string[] = [];
  node.parts.before = async (step, signal) => {
    if (step === 'driver.start') await untilAborted(tried.promise, signal);
    else if (step === 'machine.attachDisk') made.push(step);
    if (made.length === 1) throw new PodvmError('timeout', 'no answer');
  };
  const sandbox = await node.sandboxes.run(named('first'), never);
  await assert.rejects(sandbox.createContainer(containerSpec, never), { message: 'no answer' });
  made.length = 0;
  node.parts.before = async (step) => void (step === 'machine.attachDisk' && made.push(step));
  tried.resolve();
  await node.sandboxes.warmUp('pool', never);
  assert.equal(made.length, ['scratch disk', 'image of the exercise'].length);
});

test('a machine that dies while it waits is replaced', async () => {
  await using node = await openWithPool(1);
  const [first] = await node.untilDirectories(1);
  node.parts.killMachine('gone');
  for (let spares = await node.directories(); spares.includes(first ?? '') || spares.length !== 1;) {
    await node.sandboxes.warmUp('pool', never);
    spares = await node.directories();
  }
});

test('spares are discarded when memory is scarce', async () => {
  await using node = await openWithPool(2);
  await node.untilDirectories(2);
  node.memory.availableBytes = defaultLimits.minAvailableBytes - 1;
  await node.sandboxes.run(named('web'), never); // the pool replaces a machine that is taken
  await node.untilDirectories(1);
});

test('when memory is short, spares are thrown away at once, and then a pod is refused with a fix', async () => {
  await using node = await openWithPool(2);
  await node.untilDirectories(2);
  node.memory.availableBytes = 1024 * 1024;
  await assert.rejects(node.sandboxes.run(named('web'), never), (error) => {
    assert.ok(error instanceof PodvmError && error.kind === 'exhausted');
    assert.match(error.message, /^Cannot make a sandbox: the node has 1 MiB of memory available/);
    assert.match(error.fix ?? '', /memoryReserveMiB/);
    return true;
  });
  assert.deepEqual(await node.directories(), []);
  assert.deepEqual(node.sandboxes.counts.failedStarts.find(([kind]) => kind === 'exhausted')?.[1], 1);
  node.memory.availableBytes = Number.MAX_SAFE_INTEGER;
  await node.sandboxes.run(named('web'), never);
});

test('spare machines are ended when descriptors are scarce, and a pod is refused with a fix', async () => {
  await using node = await openWithPool(2);
  await node.untilDirectories(2);
  node.memory.hasDescriptors = false;
  await assert.rejects(node.sandboxes.run(named('web'), never), (error) => {
    assert.ok(error instanceof PodvmError && error.kind === 'exhausted');
    assert.equal(error.message, 'Cannot make a sandbox: podvm is short of file descriptors');
    assert.match(error.fix ?? '', /LimitNOFILE/);
    return true;
  });
  await node.sandboxes.warmUp('pool', never);
  await node.untilDirectories(0);
  node.memory.hasDescriptors = true;
  await node.sandboxes.run(named('web'), never);
});

test('a check of the node that fails ends neither the pool nor its machines, and podvm leaves none', async () => {
  await using node = await openWithPool(1);
  const spares = await node.untilDirectories(1);
  node.memory.isReadable = false;
  await node.sandboxes.warmUp('pool', never);
  assert.deepEqual(await node.directories(), spares);
  node.memory.isReadable = true;
  await node.sandboxes.run(named('web'), never);
  await node.untilDirectories(2);
  node.memory.isReadable = false;
  await node.sandboxes.warmUp('pool', never);
});

test('a machine is discarded if its template cannot be looked up', async () => {
  let isReadable = true;
  await using node = await openWithPool(1, (parts) => {
    parts.before = async (step) => void (isReadable &&= step !== 'driver.start');
    parts.driver.hasTemplate = () => (isReadable ? Promise.resolve(true) : Promise.reject(new Error('EMFILE')));
  });
  await node.sandboxes.warmUp('pool', never);
  assert.deepEqual(await node.directories(), []);
});

/** Opens a pool of one machine and calls `act` with the number and the signal of each step of the machine's start. */
const openAt = (act: (at: number, signal: AbortSignal) => Promise<void>) => {
  let at = 0;
  return openWithPool(1, (parts) => {
    parts.before = async (_step, signal) => {
      at += 1;
      await act(at, signal);
    };
  });
};

test('the end of podvm at any moment of the start of a machine leaves nothing', async () => {
  let moments = 0;
  {
    await using node = await openAt(async (at) => void (moments = at));
    await node.untilDirectories(1);
  }
  assert.ok(moments >= 8, `${moments} steps`);
  for (let moment = 1; moment <= moments; moment += 1) {
    for (const finishesLate of [false, true]) {
      const reached = Promise.withResolvers<void>();
      await using _node = await openAt(async (at, signal) => {
        if (at !== moment) return;
        reached.resolve();
        const ended = untilAborted(new Promise<never>(() => {}), signal);
        await (finishesLate ? ended.catch(() => undefined) : ended);
      });
      await reached.promise;
    }
  }
});

test('spares are discarded when the template changes', async () => {
  let isCurrent = true;
  await using node = await openWithPool(1, (parts) => {
    parts.driver.hasTemplate = async () => isCurrent;
  });
  const [old] = await node.untilDirectories(1);
  isCurrent = false;
  const [next] = await node.untilDirectories(1);
  assert.notEqual(next, old);
});

test('booted machines wait where no template can be made', async () => {
  await using node = await openWithPool(1, (parts) => {
    parts.driver.hasTemplate = async () => false;
    parts.driver.makeTemplate = () => Promise.reject(new PodvmError('internal', 'no template'));
  });
  const [spare] = await node.untilDirectories(1);
  await node.sandboxes.warmUp('pool', never);
  assert.deepEqual(await node.directories(), [spare]);
});

test('a machine that fails its exercise is discarded, and pods start without it', async () => {
  await using node = await openWithPool(1, (parts) => {
    parts.before = async (step) => {
      if (step === 'call startExec') throw new PodvmError('internal', 'Cannot exec: no');
    };
  });
  await node.sandboxes.warmUp('pool', never);
  assert.deepEqual(await node.directories(), []);
  await node.sandboxes.run(named('web'), never);
});
