import { PodvmError } from '#base/errors.ts';
import { createClient } from '../client.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import type { ProgramParts } from '../program-parts.ts';
import { write } from '../terminal/terminal.ts';

/** Parses a port. Errors: `invalid`. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Infinity;
  if (port <= 65_535) return port;
  throw new PodvmError('invalid', `Cannot serve the dashboard: expected a port, got ${text}`, {
    fix: 'Give a number from 0 to 65535.',
  });
}

/** Serves the dashboard of the node at this socket, and prints its address, until a signal. */
export async function dashboardCommand(
  socketPath: string,
  port: number,
  { serveDashboard, terminal }: Pick<ProgramParts, 'serveDashboard' | 'terminal'>,
  ends: EndSignals,
): Promise<void> {
  await using dashboard = await serveDashboard(socketPath, port);
  void keepNode(socketPath, ends.any);
  await write(terminal.stdout, `${dashboard.url}\n`);
  await new Promise<void>((resolve) => {
    ends.listen(() => resolve());
    if (ends.any.aborted) resolve();
  });
}

/** Follows the events of pods without a use for them: a node in the background ends when nothing calls it. */
async function keepNode(socketPath: string, signal: AbortSignal): Promise<void> {
  try {
    const events = await createClient(socketPath).stream('GET', '/v1/events?follow=true', undefined, signal);
    events.on('error', () => undefined).resume();
  } catch {
    // The signal, or a node that is gone; pages say the latter.
  }
}
