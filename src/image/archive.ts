import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { indexSchema, parseOci } from './oci.ts';

/** One image of an archive, as skopeo names it, with the names it brings. */
export interface ArchivedImage {
  readonly source: string;
  readonly names: readonly string[];
}

const maxListBytes = 4 * 1024 * 1024;
const tagsSchema = v.array(v.object({ RepoTags: v.optional(v.nullable(v.array(v.string()))) }));

/**
 * What is in a docker-archive, an OCI archive or a directory with an OCI layout; nothing of it is unpacked.
 * Errors: `notFound`, `invalid` (none of the three), `corrupt`.
 */
export async function readArchive(path: string, signal: AbortSignal): Promise<readonly ArchivedImage[]> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot load ${path}: there is no such file or directory`, { cause });
  });
  if (found.isDirectory()) {
    const index = await readFile(join(path, 'index.json'), 'utf8').catch((cause: unknown) => {
      throw noArchive(path, cause);
    });
    return layoutImages(`oci:${path}`, index);
  }
  const manifest = await member(path, 'manifest.json', signal);
  if (manifest !== undefined) {
    return parseOci(`${path}: manifest.json`, manifest, tagsSchema).map((image, index) => ({
      source: `docker-archive:${path}:@${index}`,
      names: image.RepoTags ?? [],
    }));
  }
  const index = await member(path, 'index.json', signal);
  if (index === undefined) throw noArchive(path);
  return layoutImages(`oci-archive:${path}`, index);
}

function layoutImages(transport: string, index: string): readonly ArchivedImage[] {
  const { manifests } = parseOci('index.json of the OCI layout', index, indexSchema);
  return manifests.map((manifest) => {
    const name =
      manifest.annotations?.['io.containerd.image.name'] ?? manifest.annotations?.['org.opencontainers.image.ref.name'];
    // skopeo finds an image of a layout by its annotation; one without is found only when it is alone.
    const reference = manifest.annotations?.['org.opencontainers.image.ref.name'];
    return {
      source: reference === undefined ? transport : `${transport}:${reference}`,
      names: name === undefined ? [] : [name],
    };
  });
}

async function member(path: string, name: string, signal: AbortSignal): Promise<string | undefined> {
  const { code, stdout } = await run('tar', ['--extract', '--to-stdout', '--file', path, '--occurrence=1', name], {
    signal,
    okCodes: [0, 2],
    maxOutputBytes: maxListBytes,
  });
  return code === 0 && stdout !== '' ? stdout : undefined;
}

function noArchive(path: string, cause?: unknown): PodvmError {
  return new PodvmError('invalid', `Cannot load ${path}: it is no docker-archive, OCI archive or OCI layout`, {
    cause,
  });
}
