import { createInterface } from 'node:readline/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type ImageSummary, imageSummarySchema, type PruneRequestInput } from '#api/images.ts';
import { podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { flag } from '../command-row.ts';
import { podPath } from '../pods/pod-name.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export interface PruneOptions {
  readonly all: boolean;
  readonly force: boolean;
}

export const pruneOptions = [
  flag('-a, --all', 'also images with a name, if no pod uses them'),
  flag('-f, --force', 'ask nothing'),
] as const;

/** Removes images that nothing uses. */
export async function pruneImages(client: Client, { all, force }: PruneOptions, terminal: Terminal): Promise<void> {
  const which = all ? 'images that no pod uses' : 'images without a name';
  if (!force && !(await isConfirmed(`Remove all ${which}?`, terminal))) return;
  await write(terminal.stdout, told(await removeUnused(client, all)));
}

/** Removes the pods that have ended, with their logs, and images that nothing uses. */
export async function pruneSystem(client: Client, { all, force }: PruneOptions, terminal: Terminal): Promise<void> {
  const which = `pods that have ended, and all ${all ? 'images that no pod uses' : 'images without a name'}`;
  if (!force && !(await isConfirmed(`Remove all ${which}?`, terminal))) return;
  const pods = await client.get('/v1/pods?ended=true', v.array(podSummarySchema));
  for (const { namespace, name } of pods.filter(({ endedAt }) => endedAt !== undefined)) {
    await client.send('DELETE', podPath(`${namespace}/${name}`), undefined, podSummarySchema);
    await write(terminal.stdout, `${namespace}/${name} removed\n`);
  }
  await write(terminal.stdout, told(await removeUnused(client, all)));
}

const removeUnused = async (client: Client, all: boolean): Promise<readonly ImageSummary[]> =>
  await client.send('POST', '/v1/images/prune', { all } satisfies PruneRequestInput, v.array(imageSummarySchema));

function told(removed: readonly ImageSummary[]): string {
  const lines = removed.map(({ id, references }) => `${references[0] ?? id} removed\n`);
  const megabytes = removed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / 1_000_000;
  return `${lines.join('')}${megabytes.toFixed(1)} MB of images removed\n`;
}

/** Asks for confirmation on a terminal. Errors: `invalid` if there is none. */
async function isConfirmed(question: string, { stdin, stderr }: Terminal): Promise<boolean> {
  if (!stdin.isTTY) {
    throw new PodvmError('invalid', 'Cannot ask for confirmation: standard input is not a terminal', {
      fix: 'Add --force to remove without confirmation.',
    });
  }
  using asking = createInterface({ input: stdin, output: stderr });
  return /^y(es)?$/i.test((await asking.question(`${question} [y/N] `)).trim());
}
