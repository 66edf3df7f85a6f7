import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { createImageDisks, type ImageDisksSite, type ImagesBefore } from './image-disks.ts';
import { createPhases } from '../state/phases.ts';

test('attach() reports a damaged image when a guest cannot mount it, and otherwise the guest’s message', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-image-disks-'));
  try {
    const rootfsPath = join(directory, 'rootfs.erofs');
    await writeFile(rootfsPath, '');
    for (const [kind, damage, message] of [
      [
        'failedPrecondition',
        'its content differs from what was written',
        /^Cannot mount image sha256:1: it is damaged: its/,
      ],
      ['failedPrecondition', undefined, /EUCLEAN/],
      ['timeout', 'its file is gone', /EUCLEAN/],
    ] as const) {
      let disposed = 0;
      const image = {
        id: 'sha256:1',
        config: {},
        rootfsPath,
        layerPaths: [],
        findDamage: async () => damage,
        [Symbol.asyncDispose]: async () => void (disposed += 1),
      };
      const machine = { attachDisk: async () => {}, emptyDisk: async () => {} };
      const call = async () => {
        throw new PodvmError(kind, 'Cannot mount disk image-0: EUCLEAN');
      };
      const disks = createImageDisks({ machine, guest: { call }, machineDirectory: directory });
      const signal = new AbortController().signal;
      await assert.rejects(
        disks.attach(
          image,
          createPhases(() => 0n),
          signal,
        ),
        { message },
      );
      await disks[Symbol.asyncDispose]();
      assert.equal(disposed, 1);
      await rm(join(directory, 'image-0.erofs'));
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});

const never = new AbortController().signal;
const phases = createPhases(() => 0n);

/** Images `a` and `b`, and a machine that records its calls. */
async function openSite(before?: ImagesBefore) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-image-disks-'));
  const journal: string[] = [];
  const fault: { failAt: string | undefined } = { failAt: undefined };
  const step = async (what: string) => {
    if (what === fault.failAt) throw new PodvmError('timeout', 'no answer');
    journal.push(what);
  };
  const plugged: (readonly string[])[] = [];
  const guest = {
    call: async (method: string, params: { readonly serial: string }) => {
      await step(`${method} ${params.serial}`);
      return { phases: [] };
    },
  };
  const site: ImageDisksSite = {
    machine: {
      attachDisk: async ({ serial, file = '', followedBy = [] }) => {
        plugged.push([file, ...followedBy]);
        await step(`plug ${serial}`);
      },
      emptyDisk: (serial) => step(`empty ${serial}`),
    },
    guest,
    machineDirectory: directory,
    ...(before === undefined ? {} : { before }),
    onFirst: (id) => void journal.push(`first ${id}`),
  };
  const alive = new Set<string>();
  const image = async (id: string) => {
    const rootfsPath = join(directory, id);
    alive.add(id);
    await writeFile(rootfsPath, id, { flag: 'a' });
    return {
      id,
      config: {},
      rootfsPath,
      layerPaths: [],
      findDamage: async () => undefined,
      [Symbol.asyncDispose]: async () => void alive.delete(id),
    };
  };
  return Object.assign(fault, {
    disks: createImageDisks(site),
    journal,
    alive,
    image,
    /** The files of each disk that was plugged. */
    plugged,
    files: async () => (await readdir(directory)).filter((name) => name.endsWith('.erofs')),
    remove: (id: string) => rm(join(directory, id)),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  });
}

const aheadSteps = ['plug image-0', 'attachDisk image-0'];

test('an image attached ahead becomes the disk of the first container that needs it', async () => {
  await using site = await openSite();
  const { disks, journal } = site;
  await disks.attachAhead(await site.image('a'), phases, never);
  assert.deepEqual(disks.ahead, ['a']);
  assert.deepEqual(disks.plugged, []);
  const serials = await Promise.all([
    disks.attach(await site.image('a'), phases, never),
    disks.attach(await site.image('b'), phases, never),
  ]);
  assert.deepEqual(serials, ['image-0', 'image-1']);
  assert.deepEqual(new Set(journal), new Set([...aheadSteps, 'first a', 'plug image-1', 'attachDisk image-1']));
  assert.deepEqual(disks.ahead, []);
  assert.deepEqual(new Set(disks.plugged.map(({ id }) => id)), new Set(['a', 'b']));
  assert.deepEqual([...site.alive], ['a', 'b']);
  await disks[Symbol.asyncDispose]();
  assert.deepEqual([...site.alive], []);
});

test('an image attached ahead is taken from the machine before a container has another image', async () => {
  await using site = await openSite();
  const { disks, journal } = site;
  await disks.attachAhead(await site.image('a'), phases, never);
  assert.equal(await disks.attach(await site.image('b'), phases, never), 'image-1');
  const steps = [...aheadSteps, 'first b', 'plug image-1', 'attachDisk image-1', 'empty image-0'];
  assert.deepEqual(new Set(journal), new Set(steps));
  assert.deepEqual(await site.files(), ['image-1.erofs']);
  assert.deepEqual(disks.ahead, []);
  assert.equal(await disks.attach(await site.image('a'), phases, never), 'image-2');
});

test('of several images attached ahead, a machine keeps the one that its first container needs', async () => {
  await using site = await openSite();
  const { disks } = site;
  for (const id of ['a', 'b', 'c']) await disks.attachAhead(await site.image(id), phases, never);
  assert.deepEqual(disks.ahead, ['a', 'b', 'c']);
  site.journal.length = 0;
  assert.equal(await disks.attach(await site.image('b'), phases, never), 'image-1');
  assert.deepEqual(site.journal, ['empty image-0', 'empty image-2', 'first b']);
  assert.deepEqual(await site.files(), ['image-1.erofs']);
  assert.deepEqual(disks.ahead, []);
  assert.deepEqual(disks.plugged, [{ id: 'b', serial: 'image-1' }]);
});

test('the image that a machine could not attach is not told as its first', async () => {
  await using site = await openSite();
  const { disks, journal } = site;
  site.failAt = 'attachDisk image-0';
  await assert.rejects(disks.attach(await site.image('a'), phases, never), /no answer/);
  site.failAt = undefined;
  await disks.attach(await site.image('b'), phases, never);
  assert.deepEqual(journal, ['plug image-0', 'plug image-1', 'attachDisk image-1']);
});

test('no container has its image while the machine has another that cannot be taken from it', async () => {
  await using site = await openSite();
  const { disks } = site;
  for (const id of ['a', 'b']) await disks.attachAhead(await site.image(id), phases, never);
  site.failAt = 'empty image-1';
  await assert.rejects(disks.attach(await site.image('a'), phases, never), /no answer/);
  const both = [site.image('a'), site.image('c')].map(async (image) => await disks.attach(await image, phases, never));
  for (const result of await Promise.allSettled(both)) assert.equal(result.status, 'rejected');
  assert.deepEqual(disks.plugged, []);
  site.failAt = undefined;
  const serial = await disks.attach(await site.image('a'), phases, never);
  assert.deepEqual(await site.files(), [`${serial}.erofs`]);
  assert.deepEqual(disks.plugged, [{ id: 'a', serial }]);
});

test('an image is one disk of its own file and those of its shared layers, and takes all links with it', async () => {
  await using site = await openSite();
  const { disks } = site;
  const withLayers = async (id: string) => {
    const layers = [await site.image(`${id}-low`), await site.image(`${id}-high`)];
    return { ...(await site.image(id)), layerPaths: layers.map(({ rootfsPath }) => rootfsPath) };
  };
  await disks.attachAhead(await withLayers('a'), phases, never);
  assert.deepEqual(site.plugged, [['image-0.erofs', 'image-0.1.erofs', 'image-0.2.erofs']]);
  assert.deepEqual(await site.files(), ['image-0.1.erofs', 'image-0.2.erofs', 'image-0.erofs']);
  const again = await withLayers('a');
  await site.remove('a-high'); // its file was made again
  await site.image('a-high');
  assert.equal(await disks.attach(again, phases, never), 'image-1');
  assert.deepEqual(await site.files(), ['image-1.1.erofs', 'image-1.2.erofs', 'image-1.erofs']);
});

test('a file that replaced the one attached ahead is attached instead', async () => {
  await using site = await openSite();
  await site.disks.attachAhead(await site.image('a'), phases, never);
  await site.remove('a');
  assert.equal(await site.disks.attach(await site.image('a'), phases, never), 'image-1');
  assert.deepEqual(await site.files(), ['image-1.erofs']);
});

test('an image attached ahead by an earlier process is taken from the machine by the next', async () => {
  const held = new AsyncDisposableStack();
  await using site = await openSite({
    images: [{ id: 'b', serial: 'image-1' }],
    serials: ['image-0', 'image-1'],
    held,
  });
  assert.equal(await site.disks.attach(await site.image('b'), phases, never), 'image-1');
  assert.equal(await site.disks.attach(await site.image('c'), phases, never), 'image-2');
  assert.deepEqual(new Set(site.journal), new Set(['first c', 'plug image-2', 'attachDisk image-2', 'empty image-0']));
});
