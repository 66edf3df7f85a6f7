import { readFile } from 'node:fs/promises';

/** The whole lines of a log in CRI's format, `TIME stdout F text`: one in several parts has `P` in all but the last. */
export async function logLines(path: string): Promise<readonly string[]> {
  const lines: string[] = [];
  let begun = '';
  for (const record of (await readFile(path, 'utf8')).split('\n').slice(0, -1)) {
    const [, , tag, ...words] = record.split(' ');
    begun += words.join(' ');
    if (tag === 'P') continue;
    lines.push(begun);
    begun = '';
  }
  return lines;
}
