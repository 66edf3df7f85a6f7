import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import * as v from 'valibot';
import { readFileIfThere } from '#host/file/files.ts';
import { keysOf } from '../logins.ts';

const maxFileChars = 1024 * 1024;
const entry = v.object({ prefix: v.optional(v.string(), ''), location: v.optional(v.string(), '') });
const configuration = v.object({ registry: v.optional(v.array(entry), []) });

/**
 * Returns the name under which skopeo fetches an image of that full name (without tag): the `location` that
 * `registries.conf` has for the longest `prefix` of the name (containers-registries.conf(5)). Mirrors do not count:
 * they are other registries that may have the image. A file that cannot be read changes nothing here; skopeo reports
 * its fault.
 */
export async function rewrittenName(containersDirectory: string, name: string): Promise<string> {
  const rules = new Map<string, string>();
  for (const path of await configurationFiles(containersDirectory)) {
    for (const { prefix, location } of await registriesIn(path)) {
      if (location !== '') rules.set(prefix === '' ? location : prefix, location);
    }
  }
  const found = [...rules]
    .map(([prefix, location]) => ({ length: matchLength(prefix, name), location }))
    .toSorted((a, b) => b.length - a.length)[0];
  return found === undefined || found.length === 0 ? name : found.location + name.slice(found.length);
}

/** Lists the main file, then those that override it, in their order. */
async function configurationFiles(directory: string): Promise<readonly string[]> {
  const more = join(directory, 'registries.conf.d');
  const names = (await readdir(more).catch(() => [])).filter((name) => name.endsWith('.conf')).toSorted();
  return [join(directory, 'registries.conf'), ...names.map((name) => join(more, name))];
}

async function registriesIn(path: string): Promise<v.InferOutput<typeof configuration>['registry']> {
  const text = await readFileIfThere(path).catch(() => undefined);
  if (text === undefined || text.length > maxFileChars) return [];
  try {
    const parsed = v.safeParse(configuration, parse(text));
    return parsed.success ? parsed.output.registry : [];
  } catch {
    return []; // not TOML: skopeo names the line
  }
}

/** Returns the length of the beginning of the name that the prefix matches, 0 for none. `*.` matches any subdomains. */
function matchLength(prefix: string, name: string): number {
  if (!prefix.startsWith('*.')) return name === prefix || name.startsWith(`${prefix}/`) ? prefix.length : 0;
  const host = name.split('/', 1)[0] ?? '';
  return host.endsWith(prefix.slice(1)) ? host.length : 0;
}

const authFile = v.looseObject({ auths: v.optional(v.record(v.string(), v.unknown()), {}) });

/**
 * Copies the credentials of one name to another in the text of an auth file, so that they apply where the image is
 * fetched. Returns the text unchanged if the other name has some already, or the first has none.
 */
export function authsForBoth(text: string, name: string, other: string): string {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), authFile), text);
  if (!parsed.success || name === other) return text;
  const { auths } = parsed.output;
  const keyOf = (wanted: string) => keysOf(wanted).find((key) => Object.hasOwn(auths, key));
  const key = keyOf(name);
  if (key === undefined || keyOf(other) !== undefined) return text;
  return JSON.stringify({ ...parsed.output, auths: { ...auths, [other]: auths[key] } });
}
