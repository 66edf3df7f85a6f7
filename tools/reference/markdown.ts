import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type FormatConfig, format } from 'oxfmt';

/** Table; the formatter aligns its columns. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('');
}

export const code = (text: string): string => `\`${text}\``;

/** Page with its title, as the formatter would have it. */
export async function page(title: string, source: string, ...parts: readonly string[]): Promise<string> {
  const note = `<!-- Printed by \`npm run docs\` from ${source}. Edit that instead. -->`;
  const text = [`# ${title}`, note, ...parts].join('\n\n');
  const file = await readFile(join(import.meta.dirname, '../../.oxfmtrc.json'), 'utf8');
  const options = JSON.parse(file) as FormatConfig; // SAFE: the formatter reads the same file
  const { code: formatted, errors } = await format('page.md', text, options);
  if (errors.length > 0) throw new Error(`Cannot format the page ${title}: ${errors[0]?.message}`);
  return formatted;
}
