import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { parse } from 'yaml';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { nearest } from '#pod/schema/unknown-fields.ts';
import { settings, type SettingName } from './settings.ts';

/** Settings of a file, by key. Values are checked together with all other settings. */
export type FileSettings = Readonly<Partial<Record<SettingName, string>>>;

const maxFileBytes = 64 * 1024;
const scalar = v.pipe(v.union([v.string(), v.number()]), v.transform(String));
const mapping = v.pipe(
  v.custom<Record<string, unknown>>((value) => typeof value === 'object' && value !== null && !Array.isArray(value)),
  v.transform((value) => new Map(Object.entries(value))),
);
const names = Object.keys(settings);
const isSetting = (key: string): key is SettingName => Object.hasOwn(settings, key);

/** Reads a YAML file of `settings`. Errors: `notFound`, `invalid`, naming the key. */
export async function readConfigFile(path: string): Promise<FileSettings> {
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === 'ENOENT' ? 'no such file' : cause.message;
    throw new PodvmError('notFound', `Cannot read the configuration ${path}: ${why}`, {
      fix: 'Pass a YAML settings file with --config; see docs/reference/settings.md.',
    });
  });
  const wrong = (reason: string, cause?: unknown) =>
    new PodvmError('invalid', `Cannot use the configuration ${path}: ${reason}`, {
      cause,
      fix: `Use only these keys: ${names.join(', ')}; see docs/reference/settings.md.`,
    });
  if (text.length > maxFileBytes) throw wrong(`it must have at most ${maxFileBytes} bytes`);
  const entries = v.safeParse(mapping, read(text, wrong));
  if (!entries.success) throw wrong('it is not a mapping of settings, one `key: value` per line');
  const found: Partial<Record<SettingName, string>> = {};
  for (const [key, value] of entries.output) {
    if (!isSetting(key)) throw wrong(`\`${printable(key, 60)}\` is not a setting${didYouMean(key)}`);
    const parsed = v.safeParse(scalar, value);
    if (!parsed.success) throw wrong(`\`${key}\` must be a string or a number, got ${kindOf(value)}`);
    found[key] = parsed.output;
  }
  return found;
}

function read(text: string, wrong: (reason: string, cause: unknown) => PodvmError): unknown {
  try {
    return parse(text, { maxAliasCount: 0 }) ?? {};
  } catch (cause) {
    throw wrong('it is not YAML', cause);
  }
}

function didYouMean(key: string): string {
  const meant = nearest(key, names);
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}

function kindOf(value: unknown): string {
  if (value === null) return 'nothing';
  if (typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'a list' : 'a mapping';
}
