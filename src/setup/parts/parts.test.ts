import assert from 'node:assert/strict';
import { mkdtemp, mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { mock, test, type TestContext } from 'node:test';
import type { Assets } from '#host/assets.ts';
import { collectParts, ensurePart, sweepUnfinished, type PartRecipe } from './parts.ts';
import { holdAssets } from '../hold-assets.ts';
import { createProgress, silentProgress } from '../progress.ts';
import { takeSetupLock } from '../setup-lock.ts';

const repo = join(import.meta.dirname, '../../..');

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-parts-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

const restOfName = '0123456789ab';

function recipe(inputs: unknown, make: PartRecipe['make']): PartRecipe {
  return { name: 'thing', task: 'making a thing', inputs, make };
}

test('ensurePart() leaves nothing behind when making fails', async (t) => {
  const directory = await scratch(t);
  const failing = recipe(1, async (into) => {
    await writeFile(join(into, 'half'), 'x');
    throw new Error('no space');
  });
  await assert.rejects(ensurePart(directory, failing, silentProgress), /no space/);
  assert.deepEqual(await readdir(directory), []);
});

test('ensurePart() makes a part once, and again when its inputs change', async (t) => {
  const directory = await scratch(t);
  let made = 0;
  const make = async () => {
    made += 1;
    return { a: '1' };
  };
  const first = await ensurePart(directory, recipe(1, make), silentProgress);
  assert.deepEqual(await ensurePart(directory, recipe(1, make), silentProgress), first);
  const second = await ensurePart(directory, recipe(2, make), silentProgress);
  assert.notEqual(second.directory, first.directory);
  assert.equal(made, 2);
});

test('sweepUnfinished() removes what a killed set-up left, and only that', async (t) => {
  const directory = await scratch(t);
  await mkdir(join(directory, '.making-thing-1/deep'), { recursive: true });
  const part = await ensurePart(
    directory,
    recipe(1, async () => ({})),
    silentProgress,
  );
  await sweepUnfinished(directory);
  assert.deepEqual(await readdir(directory), [part.directory.slice(directory.length + 1)]);
});

test('collectParts() keeps current parts, and everything that is not a part', async (t) => {
  const directory = await scratch(t);
  await mkdir(join(directory, 'photos-of-2024'));
  const kept = await ensurePart(
    directory,
    recipe(1, async () => ({})),
    silentProgress,
  );
  await ensurePart(
    directory,
    recipe(2, async () => ({})),
    silentProgress,
  );
  await collectParts(directory, new Set([kept.directory]));
  assert.deepEqual((await readdir(directory)).sort(), ['photos-of-2024', kept.directory.slice(directory.length + 1)]);
});

test('collectParts() keeps a part while a process holds it, and removes it afterwards', async (t) => {
  const directory = await scratch(t);
  const { directory: old } = await ensurePart(
    directory,
    recipe(1, async () => ({})),
    silentProgress,
  );
  const handle = await open(old, 'r');
  assert.deepEqual(await collectParts(directory, new Set()), []);
  await handle.close();
  assert.deepEqual(await collectParts(directory, new Set()), [basename(old)]);
  assert.deepEqual(await readdir(directory), []);
});

test('collectParts() removes a part while another state directory uses one of the same name', async (t) => {
  const [own, other] = [await scratch(t), await scratch(t)];
  const make = async () => ({});
  const [part, used] = [
    await ensurePart(own, recipe(1, make), silentProgress),
    await ensurePart(other, recipe(1, make), silentProgress),
  ];
  await using _held = await open(used.directory, 'r');
  assert.deepEqual(await collectParts(other, new Set()), []);
  assert.deepEqual(await collectParts(own, new Set()), [basename(part.directory)]);
});

/** Writes the `current.json` of a set-up with one part, as set-up does. */
async function publish(root: string, key: string): Promise<Assets> {
  const part = join(root, 'parts', `sysroot-${key}${restOfName}`);
  await mkdir(part, { recursive: true });
  await mkdir(join(root, 'assets'), { recursive: true });
  const assets = {
    ...{ key, agent: 'a', sysroot: part, kernel: part, initramfs: part, modules: part, fileServer: part },
    ...{ kernelVersion: '6', qemuVersion: '10', crunVersion: '1' },
  };
  const current = { ...assets, generation: 'first', versions: {}, parts: [part] };
  const file = join(root, 'assets/current.json');
  await writeFile(`${file}.next`, JSON.stringify(current));
  await rename(`${file}.next`, file);
  return assets;
}

test('holdAssets() keeps parts until it is disposed, and holds no replaced ones', async (t) => {
  const root = await scratch(t);
  const parts = join(root, 'parts');
  const first = await publish(root, 'aaaa');
  const held = await holdAssets({ root, repo }, first);
  await publish(root, 'bbbb');
  const keep = new Set([join(parts, `sysroot-bbbb${restOfName}`)]);
  assert.deepEqual(await collectParts(parts, keep), []);
  await assert.rejects(holdAssets({ root, repo }, first), /they were removed/);
  await held[Symbol.asyncDispose]();
  assert.deepEqual(await collectParts(parts, keep), [`sysroot-aaaa${restOfName}`]);
});

test('takeSetupLock() waits until the lock is released, and can be cancelled', async (t) => {
  const root = await scratch(t);
  const forEver = new AbortController().signal;
  const first = await takeSetupLock(root, silentProgress, forEver);
  await assert.rejects(takeSetupLock(root, silentProgress, AbortSignal.timeout(100)), /cancelled/);
  const waiting = takeSetupLock(root, silentProgress, forEver);
  await first[Symbol.asyncDispose]();
  await (await waiting)[Symbol.asyncDispose]();
});

test('createProgress() says how far a long task is, and nothing once it has ended', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  using _ = { [Symbol.dispose]: () => mock.timers.reset() };
  const lines: string[] = [];
  const work = Promise.withResolvers<void>();
  const late = Promise.withResolvers<string>();
  const answers = [Promise.resolve('12 files compiled'), Promise.resolve(undefined), late.promise];
  const howFar = () => answers.shift() ?? assert.fail('asked once more');
  const ended = createProgress((line) => lines.push(line)).during('compiling', () => work.promise, howFar);
  for (const ms of [2000, 30_000, 30_000]) {
    mock.timers.tick(ms);
    await new Promise(setImmediate);
  }
  mock.timers.tick(30_000);
  work.resolve();
  await ended;
  late.resolve('13 files compiled');
  await new Promise(setImmediate);
  assert.deepEqual(
    lines.map((line) => line.replaceAll(/\d+ s/g, 'N s')),
    [
      'podvm: compiling ...\n',
      'podvm: still compiling (N s, 12 files compiled)\n',
      'podvm: still compiling (N s)\n',
      'podvm: compiling: done in N s\n',
    ],
  );
});

test('createProgress() prints nothing for a short task', async () => {
  const lines: string[] = [];
  const progress = createProgress((line) => lines.push(line));
  assert.equal(await progress.during('doing little', async () => 7), 7);
  assert.deepEqual(lines, []);
});
