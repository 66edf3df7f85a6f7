import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '#host/process/run.ts';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import { writeLayout } from '../../../test/images/layout-writer.ts';
import { type CriPeer, CriPod, imagesOf } from '../cri-peer.ts';
import { type Row, sleeping, type Values } from './row.ts';

const layerCount = 20;
const layerBytes = 15_000_000;
const fileBytes = 60_000;
const goneTimeoutMs = 60_000;

/**
 * Busybox, and 20 layers of files of which half is random: they compress as programs do. The same bytes every time, but for
 * the last layer of another version.
 */
async function writeLargeImage(layout: string, busybox: string, version: number): Promise<void> {
  const next = randomFrom(19);
  const half = Buffer.alloc(fileBytes / 2, 'The quick brown fox jumps over the lazy dog. ');
  const layers = Array.from({ length: layerCount }, (_, layer) =>
    Array.from({ length: layerBytes / fileBytes }, (_, file): TarSpec => {
      const random = Buffer.alloc(fileBytes / 2);
      for (let at = 0; at < random.length; at += 4) random.writeUInt32LE(next(), at);
      if (layer === layerCount - 1) random.writeUInt32LE(version, 0);
      return { name: `data-${layer}-${file}`, content: Buffer.concat([random, half]) };
    }),
  );
  const program = { name: 'bin/sleep', content: await readFile(busybox), mode: 0o755 };
  await writeLayout(layout, [{ layers: layers.map((files, at) => (at === 0 ? [program, ...files] : files)) }]);
}

/** The generator of `Xorshift RNGs` (Journal of Statistical Software 8, 14): the sequence depends on the seed alone. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0);
  };
}

export const pullRow: Row = async ({ field, undo }) => {
  const { work, programs } = field.prepared;
  for (const version of [1, 2]) {
    const layout = join(work, `large-layout-${version}`);
    undo.defer(() => rm(layout, { recursive: true, force: true }));
    await writeLargeImage(layout, programs.busybox, version);
    await field.registry.push(layout, `podvm/large:${version}`);
  }
  const reference = `${field.registry.name}/podvm/large:1`;
  const next = { image: `${field.registry.name}/podvm/large:2` };
  return async (name): Promise<Values> => {
    const peer = field.peer(name);
    const images = imagesOf(peer);
    const image = { image: reference };
    const before = await diskMB(peer);
    const startedMs = performance.now();
    await images.pullImage({ image });
    const pullMs = performance.now() - startedMs;
    let diskAfter = Number.NaN;
    let toRunningMs = Number.NaN;
    {
      await using pod = await CriPod.start(peer, { name: 'pull', image: reference, command: sleeping });
      toRunningMs = performance.now() - startedMs;
      if ((await pod.processes()).length === 0) throw new Error(`${name}: nothing runs`);
      diskAfter = await diskMB(peer);
    }
    const restMB = await diskMB(peer);
    const nextAtMs = performance.now();
    await images.pullImage({ image: next });
    const nextPullMs = performance.now() - nextAtMs;
    const nextDiskMB = (await diskMB(peer)) - restMB;
    const againAtMs = performance.now();
    await images.pullImage({ image: next });
    const againPullMs = performance.now() - againAtMs;
    for (const one of [image, next]) await images.removeImage({ image: one });
    await untilGone(peer, before);
    return { pullMs, toRunningMs, diskMB: diskAfter - before, nextPullMs, nextDiskMB, againPullMs };
  };
};

/** Blocks of all its files. */
async function diskMB({ directory }: CriPeer): Promise<number> {
  const { stdout } = await run('du', ['-s', '-x', '-B1', directory], { okCodes: [0, 1] }); // 1: a file went meanwhile
  return Number(stdout.split('\t')[0]) / 1e6;
}

/** Waits until the runtime has removed unused content; containerd does so some time later. */
async function untilGone(peer: CriPeer, before: number): Promise<void> {
  const deadlineMs = performance.now() + goneTimeoutMs;
  while ((await diskMB(peer)) > before + 30) {
    if (performance.now() > deadlineMs) throw new Error(`${peer.name}: the removed image still takes disk space`);
    await delay(500);
  }
}
