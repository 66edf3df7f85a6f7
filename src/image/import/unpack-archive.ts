import { createReadStream, createWriteStream } from 'node:fs';
import { join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import type { ImageLimits } from '../limits.ts';
import { readTar } from '../tar/tar-reader.ts';
import type { UnpackedArchive } from './job.ts';

export interface UnpackOptions {
  /** Path of the archive, for messages. */
  readonly path: string;
  readonly limits: ImageLimits;
  /** Empty directory for an archive's members, under numbered names. */
  readonly work: string;
}

export const archiveFix = 'Give the path of a file that `docker save` wrote, or of an OCI layout.';

/** Extracts every file of the tar under a number, so that names in the tar have no effect on the host. */
export async function unpackArchive(
  descriptor: number,
  { path, limits, work }: UnpackOptions,
): Promise<UnpackedArchive> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  const bytes = createReadStream('', { fd: descriptor, autoClose: false });
  const fault = (reason: string, cause?: unknown) =>
    new PodvmError('invalid', `Cannot load ${path}: it is not a docker-archive, OCI archive or OCI layout: ${reason}`, {
      fix: archiveFix,
      ...(cause === undefined ? {} : { cause }),
    });
  const tooMuch = (what: string) =>
    new PodvmError('exhausted', `Cannot load ${path}: it has more than ${what}`, {
      fix: 'Save the images one by one.',
    });
  let left = limits.maxImageBytes;
  let nameBytes = limits.maxArchiveNameBytes;
  let members = 0; // the last of several members with one name counts, as with `tar -r`
  for await (const entry of readTar(bytes, limits, fault)) {
    const name = posix.normalize(`/${entry.name}`).slice(1);
    members += 1;
    if (members > limits.maxArchiveMembers) throw tooMuch(`${limits.maxArchiveMembers} members`);
    if (name.length > limits.maxPathBytes || entry.target.length > limits.maxPathBytes)
      throw fault('a name is too long');
    nameBytes -= name.length + entry.target.length;
    if (nameBytes < 0) throw tooMuch(`${limits.maxArchiveNameBytes} bytes of names`);
    if (entry.type === 'symlink') links.set(name, posix.join('/', posix.dirname(name), entry.target).slice(1));
    if (entry.type === 'link') links.set(name, posix.normalize(`/${entry.target}`).slice(1));
    if (entry.type !== 'file') continue;
    left -= entry.size;
    if (left < 0) throw tooMuch(`${limits.maxImageBytes} bytes`);
    const file = `member-${members}`;
    await pipeline(entry.content(), createWriteStream(join(work, file), { flags: 'wx', mode: 0o600 }));
    files.set(name, file);
  }
  return { files: [...files], links: [...links] };
}
