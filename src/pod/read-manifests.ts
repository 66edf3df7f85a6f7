import { join } from 'node:path';
import { type ErrorKind, kindOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run } from '#host/run.ts';
import { type ManifestFile, parseManifests } from './manifest.ts';
import type { Manifest } from './pods.ts';

/** What `manifest-process.ts` prints. */
export type ManifestAnswer =
  | { readonly manifest: Manifest }
  | { readonly error: { readonly kind: ErrorKind; readonly message: string; readonly fix: string | undefined } };

/** In all files together. Less than this is parsed in 0.2 s, whatever it is; a start of the other process takes longer. */
const maxCharsHere = 32 * 1024;
/** Of the process that parses more, in MB: its parser makes 500 bytes of each word. */
const maxHeapMb = 512;
const timeoutMs = 20_000;
const maxAnswerBytes = 64 * 1024 * 1024;

/**
 * Parses files without holding up what else this process serves: larger ones in a process of their own, whose time and
 * memory are bounded. Errors: those of `parseManifests`; `invalid` for files that take too much; `cancelled`.
 */
export async function readManifests(files: readonly ManifestFile[], signal: AbortSignal): Promise<Manifest> {
  if (files.reduce((sum, { text }) => sum + text.length, 0) <= maxCharsHere) return parseManifests(files);
  const answer = await parseApart(files, signal);
  if ('manifest' in answer) return answer.manifest;
  const { kind, message, fix } = answer.error;
  throw new PodvmError(kind, message, fix === undefined ? {} : { fix });
}

async function parseApart(files: readonly ManifestFile[], signal: AbortSignal): Promise<ManifestAnswer> {
  const args = [`--max-old-space-size=${maxHeapMb}`, join(import.meta.dirname, 'manifest-process.ts')];
  const options = { input: JSON.stringify(files), signal, timeoutMs, maxOutputBytes: maxAnswerBytes };
  try {
    const { stdout } = await run(process.execPath, args, options);
    return JSON.parse(stdout) as ManifestAnswer; // SAFE: our own program prints nothing else
  } catch (cause) {
    if (kindOf(cause) === 'cancelled') throw cause;
    const names = files.map(({ name }) => printable(name, 200)).join(', ');
    throw new PodvmError(
      'invalid',
      `Cannot read ${names}: it takes more than ${timeoutMs / 1000} s or ${maxHeapMb} MB of memory`,
      { cause, fix: 'Split it into smaller files.' },
    );
  }
}
