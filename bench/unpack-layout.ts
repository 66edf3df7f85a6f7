import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';

const indexSchema = v.object({ manifests: v.array(v.object({ digest: v.string() })) });
const manifestSchema = v.object({ layers: v.array(v.object({ digest: v.string() })) });

/** Unpacks the one image of an OCI layout that we made ourselves: its layers are no stranger's. */
export async function unpackLayout(layout: string, rootfs: string): Promise<void> {
  await mkdir(rootfs);
  const blob = (digest = '') => join(layout, 'blobs', digest.replace(':', '/'));
  const index = v.parse(indexSchema, JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')));
  const manifest = v.parse(manifestSchema, JSON.parse(await readFile(blob(index.manifests[0]?.digest), 'utf8')));
  for (const { digest } of manifest.layers) {
    await run('tar', ['-xf', blob(digest), '-C', rootfs, '--exclude=./dev/*'], { timeoutMs: 120_000 });
  }
}
