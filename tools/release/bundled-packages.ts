import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as v from 'valibot';

/** The npm packages that a release bundles, and its records of them. */
const entrySchema = v.object({
  version: v.string(),
  resolved: v.optional(v.string()),
  integrity: v.optional(v.string()),
  license: v.optional(v.string()),
});
const lockSchema = v.object({ packages: v.record(v.string(), v.looseObject({})) });

/** Directory of the package that contains the file, as in `package-lock.json`; undefined for a file of podvm's own. */
export function packageOf(file: string): string | undefined {
  return /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0];
}

/**
 * Returns a lock file of these packages, all of them as direct dependencies of podvm, because theirs are bundled, too.
 */
export async function lockOf(repo: string, version: string, directories: readonly string[]): Promise<string> {
  const { packages } = v.parse(lockSchema, JSON.parse(await readFile(join(repo, 'package-lock.json'), 'utf8')));
  const entries = directories
    .toSorted()
    .map((directory) => [directory, v.parse(entrySchema, packages[directory])] as const);
  const dependencies = Object.fromEntries(
    entries.map(([directory, entry]) => [directory.replace(/^.*node_modules\//, ''), entry.version]),
  );
  const root = { name: 'podvm', version, license: 'Apache-2.0', dependencies };
  const lock = { lockfileVersion: 3, packages: { '': root, ...Object.fromEntries(entries) } };
  return `${JSON.stringify(lock, null, 2)}\n`;
}

/** Returns the licence texts of the packages, each below the package's name. Errors: a package without one. */
export async function licenceTexts(repo: string, directories: readonly string[]): Promise<string> {
  const texts = await Promise.all(
    directories.toSorted().map(async (directory) => {
      const names = await readdir(join(repo, directory));
      const files = names.filter((name) => /^(?:licen[cs]e|copying|notice)(?:\.\w+)?$/i.test(name)).toSorted();
      const name = directory.replace(/^.*node_modules\//, '');
      const found = await Promise.all(files.map((file) => readFile(join(repo, directory, file), 'utf8')));
      if (found.length === 0) found.push(await statedLicence(repo, directory));
      return `${name}\n${'='.repeat(name.length)}\n\n${found.map((text) => text.trim()).join('\n\n')}\n`;
    }),
  );
  return texts.join('\n\n');
}

/** Names the licence of a package that does not contain its text. */
async function statedLicence(repo: string, directory: string): Promise<string> {
  const { license } = v.parse(
    v.object({ license: v.string() }),
    JSON.parse(await readFile(join(repo, directory, 'package.json'), 'utf8')),
  );
  return `${basename(directory)} is under ${license}.`;
}
