import { Option } from 'commander';

/** Forms of a list besides its table. */
export const listOutputs = ['name', 'json', 'yaml'] as const;
export type ListOutput = (typeof listOutputs)[number];

/** The option `-o` of a command that prints a list. */
export const outputOption = (...tables: readonly string[]): Option =>
  new Option('-o, --output <format>', 'form of the output').choices([...tables, ...listOutputs]).default('table');

/** Options that choose among namespaces. A list is of all of them by default. */
export const namespaceOptions = [
  new Option('-n, --namespace <namespace>', 'list only those of a namespace'),
  new Option('-A, --all-namespaces', 'list those of all namespaces, which is the default').conflicts('namespace'),
] as const;

/** Formats a list. `namesOf`: the names of an item, one a line. */
export async function listText<T>(
  items: readonly T[],
  output: ListOutput,
  namesOf: (item: T) => readonly string[],
): Promise<string> {
  if (output === 'json') return `${JSON.stringify(items, null, 2)}\n`;
  if (output === 'name')
    return items
      .flatMap(namesOf)
      .map((name) => `${name}\n`)
      .join('');
  const { stringify } = await import('../yaml.ts'); // most commands do not need it
  return stringify(items);
}
