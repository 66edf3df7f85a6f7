import { Option } from 'commander';

/** Forms of a list besides its table. */
export const listOutputs = ['name', 'json', 'yaml'] as const;
export type ListOutput = (typeof listOutputs)[number];

/** The option `-o` of a command that prints a list. */
export const outputOption = (...tables: readonly string[]): Option =>
  new Option('-o, --output <format>', 'form of the output').choices([...tables, ...listOutputs]).default('table');

/** Forms of the details of one thing. */
export type DetailOutput = 'json' | 'yaml';

/** The option `-o` of a command that prints all details of one thing. */
export const detailOption = (): Option =>
  new Option('-o, --output <format>', 'form of the output').choices(['json', 'yaml']).default('json');

/** Formats all details of one thing, or of everything that a table sums up. */
export async function detailText(details: unknown, output: DetailOutput): Promise<string> {
  if (output === 'json') return `${JSON.stringify(details, null, 2)}\n`;
  const { stringify } = await import('../yaml.ts'); // most commands do not need it
  return stringify(details);
}

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
  if (output !== 'name') return await detailText(items, output);
  return items
    .flatMap(namesOf)
    .map((name) => `${name}\n`)
    .join('');
}
