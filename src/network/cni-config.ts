import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { conflistSchema, maxConflistBytes, type Conflist } from './cni-schema.ts';

/**
 * The first `*.conflist` of the directory by name, as other runtimes choose. Errors: `failedPrecondition` when there is
 * none or it is not valid (a file that was meant must not be passed over in silence).
 */
export async function readConflist(directory: string): Promise<Conflist> {
  const files = (await readdir(directory).catch(() => [])).filter((file) => file.endsWith('.conflist')).sort();
  const [first] = files;
  if (first === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot connect a pod to a network: no *.conflist in ${directory}`, {
      fix: 'Install a cluster network (it writes one there), or configure no CNI directory to get the built-in bridge.',
    });
  }
  return parseConflist(join(directory, first));
}

async function parseConflist(path: string): Promise<Conflist> {
  const fail = (reason: string, cause?: unknown) =>
    new PodvmError('failedPrecondition', `Cannot use CNI configuration ${path}: ${reason}`, { cause });
  if ((await stat(path)).size > maxConflistBytes) throw fail(`more than ${maxConflistBytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw fail('not JSON', cause);
  }
  const parsed = v.safeParse(conflistSchema, value);
  if (!parsed.success) throw fail(v.summarize(parsed.issues).slice(0, 300));
  return parsed.output;
}
