import { join } from 'node:path';
import { type ErrorKind, kindOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { run } from '#host/process/run.ts';
import { type ManifestFile, parseManifests } from './manifest.ts';
import type { Manifest } from '../pods.ts';

/** Output of `manifest-process.ts`. */
export type ManifestAnswer =
  | { readonly manifest: Manifest }
  | { readonly error: { readonly kind: ErrorKind; readonly message: string; readonly fix: string | undefined } };

/**
 * Total characters that are parsed in this process. They take at most 0.2 s; starting the other process takes longer.
 */
const maxCharsHere = 32 * 1024;
/** Memory of the other process, in MB. The parser needs 500 bytes for each word. */
const maxHeapMb = 512;
const timeoutMs = 20_000;
const maxAnswerBytes = 64 * 1024 * 1024;

/**
 * Parses files without blocking this process: larger ones in a separate process with limited time and memory. Errors:
 * those of `parseManifests`; `invalid` for files that exceed the limits; `cancelled`.
 */
export async function readManifests(files: readonly ManifestFile[], signal: AbortSignal): Promise<Manifest> {
  if (files.reduce((sum, { text }) => sum + text.length, 0) <= maxCharsHere) return parseManifests(files);
  const answer = await parseApart(files, signal);
  if ('manifest' in answer) return answer.manifest;
  const { kind, message, fix } = answer.error;
  throw new PodvmError(kind, message, fix === undefined ? {} : { fix });
}

async function parseApart(files: readonly ManifestFile[], signal: AbortSignal): Promise<ManifestAnswer> {
  const args = [
    `--max-old-space-size=${maxHeapMb}`,
    join(programDirectory, entryPoint('src/pod/manifest/manifest-process')),
  ];
  const options = { input: JSON.stringify(files), signal, timeoutMs, maxOutputBytes: maxAnswerBytes };
  try {
    const { stdout } = await run(process.execPath, args, options);
    return JSON.parse(stdout) as ManifestAnswer; // SAFE: our own program prints nothing else
  } catch (cause) {
    if (kindOf(cause) === 'cancelled') throw cause;
    const names = files.map(({ name }) => printable(name, 200)).join(', ');
    throw new PodvmError(
      'invalid',
      `Cannot read ${names}: parsing takes more than ${timeoutMs / 1000} s or ${maxHeapMb} MB of memory`,
      { cause, fix: 'Split it into smaller files.' },
    );
  }
}
