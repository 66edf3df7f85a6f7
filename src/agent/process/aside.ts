import type { Timers } from '#engine/engine.ts';
import type { Children } from './children.ts';

const pollMs = 5;
const interrupted = 4;

/** Runs a call of `Asides` and returns its errno, 0 for success; waits while too many are under way. */
export async function runAside(
  timers: Pick<Timers, 'setTimer'>,
  children: Pick<Children, 'wait'>,
  start: () => number,
): Promise<number> {
  let pid = start();
  for (; pid === 0; pid = start()) await new Promise<void>((resolve) => void timers.setTimer(pollMs, resolve));
  return (await children.wait(pid)).code ?? interrupted;
}
