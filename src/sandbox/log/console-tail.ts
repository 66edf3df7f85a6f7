import { type GuestText, guestText } from '#base/guest-text.ts';
import type { Machine } from '#vm/driver.ts';

const tailBytes = 16 * 1024;
const tailLines = 8;

/** Start of the line in which a kernel reports why it ends; the registers that it prints afterwards say little. */
const reason = /Kernel panic - |\bBUG: |\bOops: /;

/** The last lines of the guest's serial console; empty if there are none. */
export async function consoleTail(
  machine: Pick<Machine, 'consoleTail'>,
  { lines, bytes }: { readonly lines: number; readonly bytes: number },
): Promise<readonly GuestText[]> {
  return (await linesOf(machine, bytes)).slice(-lines).map(guestText);
}

/** Returns the lines that explain the end of a guest: the one with its kernel's reason, if any, and the last ones. */
export async function lastWords(machine: Pick<Machine, 'consoleTail'>): Promise<readonly GuestText[]> {
  const all = await linesOf(machine, tailBytes);
  const at = all.findLastIndex((line) => reason.test(line));
  const [line] = all.slice(at);
  const isHidden = at >= 0 && at < all.length - tailLines && line !== undefined;
  return (isHidden ? [line, ...all.slice(1 - tailLines)] : all.slice(-tailLines)).map(guestText);
}

/** Why a machine ended, followed by the last words of its guest. */
export async function withConsole(why: string, machine: Pick<Machine, 'consoleTail'>): Promise<string> {
  const tail = await lastWords(machine);
  return tail.length === 0 ? why : `${why}; the guest's last lines: ${tail.join(' | ')}`;
}

async function linesOf(machine: Pick<Machine, 'consoleTail'>, bytes: number): Promise<readonly string[]> {
  const text = (await machine.consoleTail(bytes)).toString('latin1');
  return text.split(/\r?\n/).filter((line) => line.trim() !== '');
}
