import { type GuestText, guestText } from '#base/guest-text.ts';
import type { Machine } from '#vm/driver.ts';

const tailBytes = 4096;
const tailLines = 8;

/** The last lines of the guest's serial console; empty without any. */
export async function consoleTail(
  machine: Pick<Machine, 'consoleTail'>,
  { lines = tailLines, bytes = tailBytes } = {},
): Promise<readonly GuestText[]> {
  const text = (await machine.consoleTail(bytes)).toString('latin1');
  return text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '')
    .slice(-lines)
    .map(guestText);
}

/** Why a machine ended, followed by the last lines of its console. */
export async function withConsole(why: string, machine: Pick<Machine, 'consoleTail'>): Promise<string> {
  const tail = await consoleTail(machine);
  return tail.length === 0 ? why : `${why}; the guest's last lines: ${tail.join(' | ')}`;
}
