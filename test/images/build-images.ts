import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { findDebianArchive, suite } from '#setup/parts/debian-archive.ts';
import type { Recipe } from './recipes.ts';

/** Directory in which built images are kept, by their recipes. */
export const cache = '/var/cache/podvm-test-images';
const buildTimeoutMs = 900_000;

/** Directory with the OCI layout of the image; made now if its recipe has changed. */
export async function buildImage(recipe: Recipe, signal: AbortSignal): Promise<string> {
  const key = createHash('sha256')
    .update(JSON.stringify([recipe, suite]))
    .digest('hex')
    .slice(0, 16);
  const layout = join(cache, key);
  if (await isThere(layout)) return layout;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.making-'));
  try {
    await makeLayout(await makeTree(recipe, work, signal), join(work, 'layout'), recipe, signal);
    await rename(join(work, 'layout'), layout);
    return layout;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function makeTree(recipe: Recipe, work: string, signal: AbortSignal): Promise<string> {
  const { sources, aptOptions } = await findDebianArchive(undefined, signal);
  const finish = join(work, 'finish');
  await writeFile(
    finish,
    `#!/bin/sh\nset -eu\n${recipe.finish}\nrm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/var/cache/apt/*\n`,
  );
  await chmod(finish, 0o755);
  const tar = join(work, 'tree.tar');
  const options = aptOptions.flatMap((option) => ['--aptopt', option]);
  const { variant = 'apt' } = recipe;
  const args = [
    `--variant=${variant}`,
    `--include=${recipe.packages.join(',')}`,
    `--${variant === 'extract' ? variant : 'customize'}-hook=${finish} "$1"`,
    ...options,
    suite,
    tar,
    '-',
  ];
  await run('mmdebstrap', ['--quiet', ...args], {
    signal,
    input: `${sources.join('\n')}\n`,
    timeoutMs: buildTimeoutMs,
  });
  return tar;
}

async function makeLayout(tar: string, layout: string, recipe: Recipe, signal: AbortSignal): Promise<void> {
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const sum = async (path: string) =>
    (await run('sha256sum', [path], { signal, timeoutMs: 300_000 })).stdout.slice(0, 64);
  const blob = (hex: string) => join(layout, 'blobs/sha256', hex);
  const diffId = await sum(tar);
  await run('gzip', ['-1', '-n', '-k', tar], { signal, timeoutMs: 300_000 });
  const layerHex = await sum(`${tar}.gz`);
  await copyFile(`${tar}.gz`, blob(layerHex));
  const layer = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: `sha256:${layerHex}`,
    size: (await stat(`${tar}.gz`)).size,
  };
  const add = async (mediaType: string, body: unknown) => {
    const text = JSON.stringify(body);
    const hex = createHash('sha256').update(text).digest('hex');
    await writeFile(blob(hex), text);
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
  };
  const config = await add('application/vnd.oci.image.config.v1+json', {
    architecture: 'amd64',
    os: 'linux',
    config: { Env: [], ...recipe.config },
    rootfs: { type: 'layers', diff_ids: [`sha256:${diffId}`] },
  });
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await add(mediaType, { schemaVersion: 2, mediaType, config, layers: [layer] });
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

export async function pushImage(layout: string, reference: string, signal: AbortSignal): Promise<void> {
  const args = ['copy', '--quiet', '--dest-tls-verify=false', `oci:${layout}`, `docker://${reference}`];
  await run('skopeo', args, { signal, timeoutMs: 300_000 });
}
