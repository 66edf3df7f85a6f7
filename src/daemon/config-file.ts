import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { parse } from 'yaml';
import { PodvmError } from '#base/errors.ts';
import { settings, type SettingName } from './settings.ts';

/** What a file sets, by key; values are checked where all settings are. */
export type FileSettings = Readonly<Partial<Record<SettingName, string>>>;

const maxFileBytes = 64 * 1024;
const scalar = v.pipe(v.union([v.string(), v.number()]), v.transform(String));
const schema = v.strictObject(
  // SAFE: an entry for each setting
  Object.fromEntries(Object.keys(settings).map((key) => [key, v.exactOptional(scalar)])) as Record<
    SettingName,
    v.ExactOptionalSchema<typeof scalar, undefined>
  >,
);

/** Reads a YAML file of `settings`. Errors: `notFound`, `invalid`, saying which key. */
export async function readConfigFile(path: string): Promise<FileSettings> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot read the configuration ${path}`, { cause });
  });
  const wrong = (reason: string, cause?: unknown) =>
    new PodvmError('invalid', `Cannot use the configuration ${path}: ${reason}`, {
      cause,
      fix: `It may have these keys: ${Object.keys(settings).join(', ')}; see docs/configuration.md.`,
    });
  if (text.length > maxFileBytes) throw wrong(`it has more than ${maxFileBytes} bytes`);
  const read = () => {
    try {
      return (parse(text, { maxAliasCount: 0 }) ?? {}) as unknown;
    } catch (cause) {
      throw wrong('it is no YAML', cause);
    }
  };
  const result = v.safeParse(schema, read());
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw wrong(`${v.getDotPath(issue) ?? 'it'} is wrong: ${issue.message}`);
}
