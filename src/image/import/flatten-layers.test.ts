import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { imageLimits } from '../limits.ts';
import { tarOf, type TarSpec } from '../tar/tar-builder.ts';
import { readErofsFile } from '../testing/read-erofs.ts';
import { flattenLayers } from './flatten-layers.ts';

const MiB = 1024 ** 2;

/** Bytes that this process has read and written by system calls. */
async function moved(): Promise<{ readonly read: number; readonly written: number }> {
  const text = await readFile('/proc/self/io', 'latin1');
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1]);
  return { read: field('rchar'), written: field('wchar') };
}

test('flattenLayers() reads each layer once, writes content once, and reads that once for its digest', async () => {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-flatten-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const tars = Array.from({ length: 6 }, (_, layer) =>
    tarOf(
      Array.from({ length: 20 }, (_one, at): TarSpec => ({ name: `f-${layer}-${at}`, content: randomBytes(MiB / 10) })),
    ),
  );
  let compressed = 0;
  const layers = [];
  for (const [at, tar] of tars.entries()) {
    const blob = gzipSync(tar, { level: 1 });
    compressed += blob.length;
    await writeFile(join(directory, `layer-${at}`), blob);
    const file = undo.use(await open(join(directory, `layer-${at}`)));
    layers.push({
      open: () => Promise.resolve(file),
      hasFile: false,
      diffId: `sha256:${createHash('sha256').update(tar).digest('hex')}`,
    });
  }
  const before = await moved();
  const { flattened, digest } = await flattenLayers(layers, { limits: imageLimits, work: directory });
  const after = await moved();
  const file = await readFile(join(directory, flattened));
  assert.equal(Object.keys(readErofsFile(file)).length, 121);
  assert.equal(digest, `sha256:${createHash('sha256').update(file).digest('hex')}`);
  const [read, written] = [after.read - before.read, after.written - before.written];
  assert.ok(read <= compressed + 1.2 * file.length, `${read} bytes were read`);
  assert.ok(written <= 1.2 * file.length, `${written} bytes were written`);
});
