import { literal } from './literal.ts';
import { wrongFlag } from './flag-error.ts';

export interface EnvVariable {
  readonly name: string;
  readonly value: string;
}

/** Variables of podvm's own environment, for names without a value. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Parses `NAME=VALUE` of each `-e`. A name alone takes its value from podvm's environment, and is left out if it has
 * none there, as in Docker.
 */
export function variablesOf(flag: string, entries: readonly string[], environment: Environment): EnvVariable[] {
  return entries.flatMap((entry) => {
    const at = entry.indexOf('=');
    const name = at < 0 ? entry : entry.slice(0, at);
    if (name === '') throw wrongFlag(flag, entry, 'the name is missing', 'Write it as NAME=VALUE, or NAME alone.');
    const value = at < 0 ? environment[name] : entry.slice(at + 1);
    return value === undefined ? [] : [{ name, value: literal(value) }];
  });
}

/**
 * Returns the entries of an env file as Docker reads it: one per line, `#` begins a comment, quotes have no meaning.
 */
export function entriesOfFile(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.replace(/\r$/, '').trimStart())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** Drops variables whose name is given again later. */
export function lastOfEachName(variables: readonly EnvVariable[]): EnvVariable[] {
  return [...new Map(variables.map((variable) => [variable.name, variable])).values()];
}
