import { json } from 'node:stream/consumers';
import { PodvmError } from '#base/errors.ts';
import { type ManifestFile, parseManifests } from './manifest.ts';
import type { ManifestAnswer } from './read-manifests.ts';

/**
 * The program that `readManifests` runs: reads files on standard input and writes the result on standard output, both
 * as JSON.
 */
function answerOf(files: readonly ManifestFile[]): ManifestAnswer {
  try {
    return { manifest: parseManifests(files) };
  } catch (error) {
    if (!(error instanceof PodvmError)) throw error; // a bug: its stack goes to standard error
    return { error: { kind: error.kind, message: error.message, fix: error.fix } };
  }
}

// SAFE: `readManifests` sends this type.
process.stdout.write(JSON.stringify(answerOf((await json(process.stdin)) as readonly ManifestFile[])));
