import { constants } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { SupportFile } from '#api/support-file.ts';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { redact } from './redact.ts';

const maxFileChars = 1024 * 1024;
const maxAllChars = 32 * 1024 * 1024;
/** Name of the directory in the archive. */
const top = 'podvm-support';

/**
 * Writes the files, without what looks like a credential, as a gzipped tar that only its owner may read. Returns what is in
 * it. Errors: `alreadyExists`, those of running tar.
 */
export async function writeBundle(
  output: string,
  files: readonly SupportFile[],
  notes: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-support-')); // with mode 0700
  try {
    const contents = [...notes.map((note) => `${note}\n`), '\n'];
    let room = maxAllChars;
    for (const { name, text } of files) {
      const kept = cut(redact(text), Math.min(maxFileChars, room));
      room -= kept.length;
      const path = name.split('/').map(fileName).join('/');
      await mkdir(dirname(join(directory, top, path)), { recursive: true });
      await writeFile(join(directory, top, path), kept);
      contents.push(`${String(Buffer.byteLength(kept)).padStart(9)}  ${path}\n`);
    }
    await writeFile(join(directory, top, 'CONTENTS.txt'), contents.join(''));
    const archive = join(directory, 'bundle.tar.gz');
    const owner = ['--owner=0', '--group=0', '--numeric-owner'];
    await run('tar', ['--create', '--gzip', ...owner, `--file=${archive}`, `--directory=${directory}`, top], {
      signal,
    });
    await chmod(archive, 0o600);
    await copyFile(archive, output, constants.COPYFILE_EXCL).catch((cause: NodeJS.ErrnoException) => {
      throw cannotWrite(output, cause);
    });
    return contents.join('');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const cut = (text: string, chars: number): string =>
  text.length <= chars
    ? text
    : `(the first ${text.length - chars} characters are left out)\n${text.slice(text.length - chars)}`;

/** A name that is no other path. */
function fileName(name: string): string {
  const plain = name.replaceAll(/[^A-Za-z0-9._-]/g, '_').slice(0, 200);
  return /^\.*$/.test(plain) ? '_' : plain;
}

function cannotWrite(output: string, cause: NodeJS.ErrnoException): PodvmError {
  if (cause.code === 'EEXIST')
    return new PodvmError('alreadyExists', `Cannot write ${output}: the file exists`, {
      fix: 'Choose another file with --output.',
    });
  return new PodvmError('internal', `Cannot write ${output}: ${cause.message}`, {
    cause,
    fix: 'Choose another file with --output.',
  });
}
