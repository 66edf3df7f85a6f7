import assert from 'node:assert/strict';
import { mkdtemp, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectParts, ensurePart, sweepUnfinished, type PartRecipe } from './parts.ts';
import { createProgress, silentProgress } from './progress.ts';
import { takeSetupLock } from './setup-lock.ts';

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-parts-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

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

test('ensurePart() makes a part once, and anew when its inputs change', async (t) => {
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

test('collectParts() keeps what is current, and whatever is no part', async (t) => {
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

test('takeSetupLock() lets the second wait until the first lets go, and be cancelled meanwhile', async (t) => {
  const root = await scratch(t);
  const forEver = new AbortController().signal;
  const first = await takeSetupLock(root, silentProgress, forEver);
  await assert.rejects(takeSetupLock(root, silentProgress, AbortSignal.timeout(100)), /cancelled/);
  const waiting = takeSetupLock(root, silentProgress, forEver);
  await first[Symbol.asyncDispose]();
  await (await waiting)[Symbol.asyncDispose]();
});

test('createProgress() says nothing of a short task', async () => {
  const lines: string[] = [];
  const progress = createProgress((line) => lines.push(line));
  assert.equal(await progress.during('doing little', async () => 7), 7);
  assert.deepEqual(lines, []);
});
