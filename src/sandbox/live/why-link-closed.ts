import { kindOf } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import type { LiveParts } from './live-parts.ts';

/** A dying machine tears its channel first: its own report, a moment later, is the better reason. */
export async function whyLinkClosed({ guest, machine, limits }: LiveParts): Promise<string> {
  const cause = await guest.closed;
  if (kindOf(cause) === 'timeout') return cause.message; // the guest no longer answers
  const exit = await within(machine.exited, { ms: limits.lastWordsMs });
  return exit?.reason ?? `the link to the agent is lost: ${cause.message}`;
}
