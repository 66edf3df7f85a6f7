import { json } from 'node:stream/consumers';
import { PodvmError } from '#base/errors.ts';
import { type ManifestFile, parseManifests } from './manifest.ts';
import type { ManifestAnswer } from './read-manifests.ts';

/** The program that `readManifests` runs: files on standard input, what they say on standard output, both as JSON. */
function answerOf(files: readonly ManifestFile[]): ManifestAnswer {
  try {
    return { manifest: parseManifests(files) };
  } catch (error) {
    if (!(error instanceof PodvmError)) throw error; // a fault of ours: its stack is on standard error
    return { error: { kind: error.kind, message: error.message, fix: error.fix } };
  }
}

// SAFE: `readManifests` gives it.
process.stdout.write(JSON.stringify(answerOf((await json(process.stdin)) as readonly ManifestFile[])));
