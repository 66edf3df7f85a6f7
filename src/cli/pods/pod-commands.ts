import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { drainedPodSchema, type PodDetails, podDetailsSchema, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import type { Orphan } from './orphans.ts';
import { forEachName } from './for-each-name.ts';
import { podNames, podPath } from './pod-name.ts';
import { type DetailOutput, detailText } from '../terminal/listing.ts';
import { tellIfLate } from '../terminal/progress-line.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export async function consoleCommand(
  client: Client,
  pod: string,
  options: { readonly follow: boolean },
  { stdout }: Terminal,
): Promise<void> {
  await print(await client.stream('GET', `${podPath(pod)}/console?follow=${options.follow}`), stdout);
}

export async function print(chunks: AsyncIterable<Uint8Array>, stdout: NodeJS.WriteStream): Promise<void> {
  await readOn(async () => {
    for await (const chunk of chunks) await write(stdout, chunk);
  });
}

/** Runs `read`, which reads a stream of the node. Errors: `unavailable` when the node ends before the stream. */
export async function readOn(read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (cause) {
    // SAFE: only compared; Node's error of a response that breaks off
    if ((cause as NodeJS.ErrnoException).code !== 'ECONNRESET') throw cause;
    throw new PodvmError('unavailable', 'Cannot read on: the podvm that served has ended', {
      cause,
      fix: 'Run the command again: pods of a node outlive it, and the next command starts another.',
    });
  }
}

export async function stopCommand(
  client: Client,
  pod: string,
  options: { readonly grace?: string },
  terminal: Terminal,
): Promise<void> {
  const stop = client.send('POST', `${podPath(pod)}/stop`, graceOf(options), podSummarySchema);
  const stopped = await tellIfLate(stop, `stopping ${pod}`, terminal);
  await write(terminal.stdout, `${stopped.namespace}/${stopped.name} stopped\n`);
}

/** Ends all pods; if no podvm serves them, ends the machines that are still running. */
export async function drainCommand(
  client: Client,
  endOrphans: () => Promise<readonly Orphan[]>,
  options: { readonly grace?: string },
  terminal: Terminal,
): Promise<void> {
  const { stdout } = terminal;
  const drain = client.send('POST', '/v1/drain', graceOf(options), v.array(drainedPodSchema));
  const ended = await tellIfLate(drain, 'stopping all pods', terminal).catch(async (error: unknown) => {
    if (!(error instanceof PodvmError && error.kind === 'unavailable')) throw error;
    return (await endOrphans()).map((orphan) => ({ ...orphan, name: orphan.name || `machine ${orphan.pid}` }));
  });
  if (ended.length === 0) return await write(stdout, 'no pod runs\n');
  await write(stdout, ended.map(({ namespace, name }) => `${namespace || '-'}/${name} stopped\n`).join(''));
}

export const graceOf = ({ grace }: { readonly grace?: string }) =>
  grace === undefined ? {} : { graceSeconds: wholeNumber('--grace', grace) };

/**
 * Prints all details of a pod, or a list with those of several, and an error for each that is missing. Returns the exit code.
 * Errors: those of the node, for one pod.
 */
export async function inspectCommand(
  client: Client,
  words: readonly string[],
  form: DetailOutput,
  terminal: Terminal,
): Promise<number> {
  const names = podNames(words);
  const details = async (pod: string) => await client.get(podPath(pod), podDetailsSchema);
  const [only] = names;
  if (names.length === 1 && only !== undefined) {
    await write(terminal.stdout, await detailText(await details(only), form));
    return 0;
  }
  const found: PodDetails[] = [];
  const code = await forEachName(names, terminal, async (pod) => void found.push(await details(pod)));
  await write(terminal.stdout, await detailText(found, form));
  return code;
}

export function wholeNumber(option: string, text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new PodvmError('invalid', `Cannot use ${option}: expected a whole number, got ${text}`, {
    fix: 'Give a number without a sign, a fraction or a unit, such as 10.',
  });
}
