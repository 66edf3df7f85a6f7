import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { drainedPodSchema, podDetailsSchema, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import type { Orphan } from './orphans.ts';
import { podPath } from './pod-name.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export interface LogsOptions {
  readonly container?: string;
  readonly follow: boolean;
  readonly previous: boolean;
  readonly tail?: string;
  readonly timestamps: boolean;
  readonly since?: string;
  readonly until?: string;
}

export async function logsCommand(
  client: Client,
  pod: string,
  options: LogsOptions,
  { stdout }: Terminal,
): Promise<void> {
  const query = new URLSearchParams({ follow: String(options.follow), previous: String(options.previous) });
  if (options.container !== undefined) query.set('container', options.container);
  if (options.tail !== undefined) query.set('tail', String(wholeNumber('--tail', options.tail)));
  if (options.timestamps) query.set('timestamps', 'true');
  for (const name of ['since', 'until'] as const) {
    const given = options[name];
    if (given !== undefined) query.set(name, timeOf(name, given, Date.now()));
  }
  await print(await client.stream('GET', `${podPath(pod)}/logs?${query.toString()}`), stdout);
}

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Reads `90s`, `1h30m` as a time before now, or a time as it is. Errors: `invalid`. */
export function timeOf(option: string, given: string, nowMs: number): string {
  if (/^(\d+[smhd])+$/.test(given)) {
    const parts = [...given.matchAll(/(\d+)([smhd])/g)];
    const agoMs = parts.reduce((sum, [, count, unit = '']) => sum + Number(count) * (unitMs[unit] ?? 0), 0);
    if (agoMs <= nowMs) return new Date(nowMs - agoMs).toISOString();
  }
  const time = new Date(given);
  if (/^\d{4}-\d\d-\d\d/.test(given) && !Number.isNaN(time.getTime())) return time.toISOString();
  throw new PodvmError(
    'invalid',
    `Cannot use --${option}: must be a duration or a time, got ${JSON.stringify(given)}`,
    {
      fix: `Give one such as --${option} 1h30m or --${option} 2026-01-31T12:00:00Z.`,
    },
  );
}

export async function consoleCommand(
  client: Client,
  pod: string,
  options: { readonly follow: boolean },
  { stdout }: Terminal,
): Promise<void> {
  await print(await client.stream('GET', `${podPath(pod)}/console?follow=${options.follow}`), stdout);
}

async function print(chunks: AsyncIterable<Uint8Array>, stdout: NodeJS.WriteStream): Promise<void> {
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
  { stdout }: Terminal,
): Promise<void> {
  const stopped = await client.send('POST', `${podPath(pod)}/stop`, graceOf(options), podSummarySchema);
  await write(stdout, `${stopped.namespace}/${stopped.name} stopped\n`);
}

/** Ends all pods; if no podvm serves them, ends the machines that are still running. */
export async function drainCommand(
  client: Client,
  endOrphans: () => Promise<readonly Orphan[]>,
  options: { readonly grace?: string },
  { stdout }: Terminal,
): Promise<void> {
  const ended = await client
    .send('POST', '/v1/drain', graceOf(options), v.array(drainedPodSchema))
    .catch(async (error: unknown) => {
      if (!(error instanceof PodvmError && error.kind === 'unavailable')) throw error;
      return (await endOrphans()).map((orphan) => ({ ...orphan, name: orphan.name || `machine ${orphan.pid}` }));
    });
  if (ended.length === 0) return await write(stdout, 'no pod runs\n');
  await write(stdout, ended.map(({ namespace, name }) => `${namespace || '-'}/${name} stopped\n`).join(''));
}

export const graceOf = ({ grace }: { readonly grace?: string }) =>
  grace === undefined ? {} : { graceSeconds: wholeNumber('--grace', grace) };

export async function inspectCommand(client: Client, pod: string, { stdout }: Terminal): Promise<void> {
  await write(stdout, `${JSON.stringify(await client.get(podPath(pod), podDetailsSchema), null, 2)}\n`);
}

function wholeNumber(option: string, text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new PodvmError('invalid', `Cannot use ${option}: expected a whole number, got ${text}`, {
    fix: 'Give a number without a sign, a fraction or a unit, such as 10.',
  });
}
