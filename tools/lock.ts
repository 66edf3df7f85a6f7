import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';

/**
 * What `package-lock.json` says of every npm package, ours and theirs, and which of it we accept. One source for the
 * audit (`tools/lock.test.ts`) and the page `docs/licences.md`, which `node tools/lock.ts` prints.
 */
const lockSchema = v.object({
  lockfileVersion: v.literal(3),
  packages: v.record(
    v.string(),
    v.object({
      version: v.string(),
      integrity: v.optional(v.string()),
      license: v.optional(v.string()),
      resolved: v.optional(v.string()),
      dev: v.optional(v.boolean(), false),
      optional: v.optional(v.boolean(), false),
      hasInstallScript: v.optional(v.boolean(), false),
    }),
  ),
});

export interface LockedPackage {
  /** Below the repository: `node_modules/a/node_modules/b`. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  readonly integrity: string | undefined;
  readonly licence: string;
  /** Where it comes from, if the lock file says that; it should not. */
  readonly resolved: string | undefined;
  readonly isDev: boolean;
  /** For one kind of machine; not installed on others. */
  readonly isOptional: boolean;
  readonly hasInstallScript: boolean;
}

/** Permissive licences: they ask no more of a distributor of PodVM than a notice. SPDX expressions. */
export const acceptedLicences: readonly string[] = [
  '(Apache-2.0 AND BSD-3-Clause)',
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
];

/** Licences of word lists of the spelling checker, which are used in development and never distributed. */
export const acceptedForDevelopment: readonly string[] = ['CC BY-SA 4.0', 'WTFPL'];

/** Packages that bring a script for their installation, which never runs: `podvm` installs with `--ignore-scripts`. */
export const packagesWithScripts: readonly string[] = ['esbuild', 'protobufjs'];

const repo = join(import.meta.dirname, '..');

export async function readLock(): Promise<readonly LockedPackage[]> {
  const lock = v.parse(lockSchema, JSON.parse(await readFile(join(repo, 'package-lock.json'), 'utf8')));
  return Object.entries(lock.packages).flatMap(([path, { license, dev, optional, ...rest }]) => {
    if (path === '') return []; // ourselves
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    return [
      {
        path,
        name,
        version: rest.version,
        integrity: rest.integrity,
        licence: license ?? 'none',
        resolved: rest.resolved,
        isDev: dev,
        isOptional: optional,
        hasInstallScript: rest.hasInstallScript,
      },
    ];
  });
}

/** The page's table: what is there at run time on every machine, and how many there are in all. */
export function describeLicences(packages: readonly LockedPackage[]): string {
  const shipped = packages.filter(({ isDev, isOptional }) => !isDev && !isOptional);
  const rows = shipped.map(({ name, version, licence }) => [`\`${name}\``, version, licence]);
  const unique = [...new Map(rows.map((row) => [row.join(), row])).values()].sort(byFirst);
  const byLicence = Object.entries(Object.groupBy(packages, ({ licence }) => licence)).sort(byFirst);
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

/** As the formatter would have it. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((word, at) => Math.max(word.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |\n`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('');
}

if (import.meta.main) process.stdout.write(describeLicences(await readLock()));
