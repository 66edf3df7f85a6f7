import { createReadStream, createWriteStream } from 'node:fs';
import { join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import type { ImageLimits } from '../limits.ts';
import { readTar } from '../tar/tar-reader.ts';
import type { UnpackedArchive } from './job.ts';

export interface UnpackOptions {
  /** Of the archive, for messages. */
  readonly path: string;
  readonly limits: ImageLimits;
  /** Empty directory; an archive's members are put there, under names of our own. */
  readonly work: string;
}

export const archiveFix = 'Give the path of a file that `docker save` wrote, or of an OCI layout.';

/** Every file of the tar as a numbered file of ours, so that no name in it means anything here. */
export async function unpackArchive(
  descriptor: number,
  { path, limits, work }: UnpackOptions,
): Promise<UnpackedArchive> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  const bytes = createReadStream('', { fd: descriptor, autoClose: false });
  const fault = (reason: string, cause?: unknown) =>
    new PodvmError('invalid', `Cannot load ${path}: it is no docker-archive, OCI archive or OCI layout: ${reason}`, {
      fix: archiveFix,
      ...(cause === undefined ? {} : { cause }),
    });
  const tooMuch = (what: string) =>
    new PodvmError('exhausted', `Cannot load ${path}: it has more than ${what}`, {
      fix: 'Save the images one by one.',
    });
  let left = limits.maxImageBytes;
  let nameBytes = limits.maxArchiveNameBytes;
  let members = 0; // of a name that comes twice the last counts, as `tar -r` has it
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
