import { readFile } from 'node:fs/promises';
import * as v from 'valibot';

/** npm's record of packages: `package-lock.json`, or `node_modules/.package-lock.json` of what is installed. */
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
  /** Path in the repository: `node_modules/a/node_modules/b`. */
  readonly path: string;
  /** Name with its scope: `@a/b`. */
  readonly name: string;
  readonly version: string;
  readonly integrity: string | undefined;
  readonly licence: string | undefined;
  /** Its source, if the lock file names one, which it should not. */
  readonly resolved: string | undefined;
  readonly isDev: boolean;
  /** Whether it is for one kind of machine and not installed on others. */
  readonly isOptional: boolean;
  readonly hasInstallScript: boolean;
}

/** The packages of a record, without podvm itself. */
export async function readNpmLock(file: string): Promise<readonly LockedPackage[]> {
  const lock = v.parse(lockSchema, JSON.parse(await readFile(file, 'utf8')));
  return Object.entries(lock.packages).flatMap(([path, { license, dev, optional, ...rest }]) => {
    if (path === '') return [];
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    const { version, integrity, resolved, hasInstallScript } = rest;
    const facts = { path, name, version, integrity, resolved, hasInstallScript };
    return [{ ...facts, licence: license, isDev: dev, isOptional: optional }];
  });
}
