import { type DetailOutput, detailText } from './terminal/listing.ts';
import { type Terminal, write } from './terminal/terminal.ts';

/** Versions by name; undefined for parts that set-up has not made. */
export type Versions = Readonly<Record<string, string | number | undefined>>;

export async function versionCommand(
  versions: Versions,
  output: 'text' | DetailOutput,
  terminal: Terminal,
): Promise<void> {
  const rows = Object.entries(versions);
  if (output !== 'text') {
    const whole = Object.fromEntries(rows.map(([name, version]) => [name, version ?? null]));
    return await write(terminal.stdout, await detailText(whole, output));
  }
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, version]) => `${name.padEnd(width)}   ${version ?? 'not set up'}\n`);
  await write(terminal.stdout, lines.join(''));
}
