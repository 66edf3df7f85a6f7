import { open } from 'node:fs/promises';
import { type GuestText, guestText } from '#base/guest-text.ts';

const tailBytes = 4096;
const tailLines = 8;

/** The last lines of the guest's serial console; empty without any. */
export async function consoleTail(path: string): Promise<readonly GuestText[]> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const buffer = Buffer.alloc(tailBytes);
    const { bytesRead } = await file.read(buffer, 0, tailBytes, Math.max(0, size - tailBytes));
    return buffer
      .subarray(0, bytesRead)
      .toString('latin1')
      .split(/\r?\n/)
      .filter((line) => line.trim() !== '')
      .slice(-tailLines)
      .map(guestText);
  } catch {
    return []; // only supplements a message
  }
}

/** Why a machine ended, followed by the last lines of its console. */
export async function withConsole(why: string, consolePath: string): Promise<string> {
  const tail = await consoleTail(consolePath);
  return tail.length === 0 ? why : `${why}; the guest's last lines: ${tail.join(' | ')}`;
}
