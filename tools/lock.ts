import { join } from 'node:path';
import { type LockedPackage, readNpmLock } from '../src/setup/bundle/npm-lock.ts';

/**
 * The npm packages of `package-lock.json`, and the licences and installation scripts among them that we accept. One
 * source for the audit (`tools/lock.test.ts`) and the page `docs/licences.md`, which `node tools/lock.ts` prints.
 */
const repo = join(import.meta.dirname, '..');

export const readLock = (): Promise<readonly LockedPackage[]> => readNpmLock(join(repo, 'package-lock.json'));

/** Permissive licences: they require only a notice from a distributor of PodVM. SPDX expressions. */
export const acceptedLicences: readonly string[] = [
  '(Apache-2.0 AND BSD-3-Clause)',
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
];

/** Licences of word lists of the spelling checker, and of axe-core, which are used in development and never distributed. */
export const acceptedForDevelopment: readonly string[] = ['CC BY-SA 4.0', 'MPL-2.0', 'WTFPL'];

/** Packages with an installation script, which never runs: `podvm` installs with `--ignore-scripts`. */
export const packagesWithScripts: readonly string[] = ['esbuild', 'protobufjs'];

/** Returns the page's tables: packages at run time on every machine, and the number of all packages by licence. */
export function describeLicences(packages: readonly LockedPackage[]): string {
  const shipped = packages.filter(({ isDev, isOptional }) => !isDev && !isOptional);
  const rows = shipped.map(({ name, version, licence }) => [`\`${name}\``, version, licence ?? 'none']);
  const unique = [...new Map(rows.map((row) => [row.join(), row])).values()].sort(byFirst);
  const byLicence = Object.entries(Object.groupBy(packages, ({ licence }) => licence ?? 'none')).sort(byFirst);
  return [
    table(['package', 'version', 'licence'], unique),
    '\nAll packages, including those for development and for other machines:\n\n',
    table(
      ['licence', 'packages'],
      byLicence.map(([licence, all = []]) => [licence, String(all.length)]),
    ),
  ].join('');
}

const byFirst = ([a = '']: readonly unknown[], [b = '']: readonly unknown[]) => (String(a) < String(b) ? -1 : 1);

/** A Markdown table in the style of the formatter. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((word, at) => Math.max(word.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |\n`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('');
}

if (import.meta.main) process.stdout.write(describeLicences(await readLock()));
