import { constants } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import { podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { podPath } from './pod-name.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export interface KillOptions {
  readonly signal: string;
  readonly container?: string;
}

/**
 * Sends a signal to the first process of each container of a pod, or of one container. The restartPolicy decides what
 * follows.
 */
export async function killCommand(
  client: Client,
  pod: string,
  { signal, container }: KillOptions,
  { stdout }: Terminal,
): Promise<void> {
  const request = { signal: signalNumber(signal), ...(container === undefined ? {} : { container }) };
  const { namespace, name } = await client.send('POST', `${podPath(pod)}/kill`, request, podSummarySchema);
  await write(stdout, `${namespace}/${name} got ${signal}\n`);
}

/** Parses a signal's number or its name, with or without SIG. Errors: `invalid`. */
export function signalNumber(word: string): number {
  const name = `SIG${word.toUpperCase().replace(/^SIG/, '')}`;
  const known = new Map<string, number>(Object.entries(constants.signals)).get(name);
  const number = /^\d{1,2}$/.test(word) ? Number(word) : known;
  if (number !== undefined && number >= 1 && number <= 64) return number;
  throw new PodvmError('invalid', `Cannot send a signal: there is no signal ${word}`, {
    fix: 'Give a name, such as TERM or SIGHUP, or a number from 1 to 64.',
  });
}
