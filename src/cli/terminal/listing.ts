import { setTimeout as delay } from 'node:timers/promises';
import { Option } from 'commander';
import { table, type Terminal, write } from './terminal.ts';

/** Forms of a list besides its tables. */
export const listOutputs = ['name', 'json', 'yaml'] as const;
export type ListOutput = (typeof listOutputs)[number];

/** Options of all lists. */
export interface ListForm {
  readonly output: 'table' | 'wide' | ListOutput;
  readonly quiet?: boolean;
  readonly json?: boolean;
  readonly watch?: boolean;
}

/** What a list is of, and how its items become rows. */
export interface Listing<T> {
  readonly find: () => Promise<readonly T[]>;
  readonly head: (isWide: boolean) => readonly string[];
  /** The rows of an item. `nowMs`: date for ages; with 0, all are equal. */
  readonly rows: (item: T, isWide: boolean, nowMs: number) => readonly (readonly string[])[];
  /** The names of an item, the first of which is unique. */
  readonly names: (item: T) => readonly string[];
}

/** The options of a command that prints a list. */
export const listOptions = (): readonly Option[] => [
  new Option('-o, --output <format>', 'form of the output').choices(['table', 'wide', ...listOutputs]).default('table'),
  new Option('-q, --quiet', 'print only names, as -o name does').default(false),
  new Option('-w, --watch', 'continue with what changes, until Ctrl-C').default(false),
  new Option('--json', 'print JSON, as -o json does').default(false),
];

/** Options that choose among namespaces. A list is of all of them by default. */
export const namespaceOptions = [
  new Option('-n, --namespace <namespace>', 'list only those of a namespace'),
  new Option('-A, --all-namespaces', 'list those of all namespaces, which is the default').conflicts('namespace'),
] as const;

export const selectorOption = (): Option =>
  new Option('-l, --selector <labels>', 'list only those with these labels: app=web,tier!=db');

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

/** Prints a list, and returns it. */
export async function printList<T>(
  listing: Listing<T>,
  form: ListForm,
  { stdout }: Pick<Terminal, 'stdout'>,
): Promise<readonly T[]> {
  const items = await listing.find();
  await write(stdout, await textOf(listing, items, outputOf(form)));
  return items;
}

/** Interval of `--watch`, in `ms`. */
const watchMs = 500;

/** With `--watch`, prints each item that is new or has changed since `items` were printed, until `until` aborts. */
export async function watchList<T>(
  listing: Listing<T>,
  form: ListForm,
  items: readonly T[],
  { stdout }: Pick<Terminal, 'stdout'>,
  until: AbortSignal,
): Promise<void> {
  if (form.watch !== true) return;
  const output = outputOf(form);
  const keyOf = (item: T) => listing.names(item)[0] ?? '';
  const rowsOf = (now: readonly T[]) =>
    new Map(now.map((item) => [keyOf(item), JSON.stringify(listing.rows(item, output === 'wide', 0))]));
  let before = rowsOf(items);
  for (;;) {
    await delay(watchMs, undefined, { signal: until }).catch(() => undefined);
    if (until.aborted) return;
    const now = await listing.find();
    const rows = rowsOf(now);
    const isChanged = (item: T) => rows.get(keyOf(item)) !== before.get(keyOf(item));
    if (now.some(isChanged)) await write(stdout, await textOf(listing, now, output, isChanged));
    before = rows;
  }
}

const outputOf = ({ quiet = false, json = false, output }: ListForm): ListForm['output'] =>
  quiet ? 'name' : json ? 'json' : output;

/** `isPrinted`: prints only these, without a head, in columns as wide as those of all. */
async function textOf<T>(
  { head, rows, names }: Listing<T>,
  items: readonly T[],
  output: ListForm['output'],
  isPrinted?: (item: T) => boolean,
): Promise<string> {
  if (output === 'table' || output === 'wide') {
    const all = items.map((item) => ({ item, rows: rows(item, output === 'wide', Date.now()) }));
    const wanted = all.flatMap((one) => one.rows.map(() => isPrinted?.(one.item) ?? true));
    const lines = table(
      head(output === 'wide'),
      all.flatMap((one) => one.rows),
    ).split(/(?<=\n)/);
    return lines.filter((_, at) => (at === 0 ? isPrinted === undefined : wanted[at - 1])).join('');
  }
  const chosen = isPrinted === undefined ? items : items.filter(isPrinted);
  if (output !== 'name') return await detailText(chosen, output);
  return chosen
    .flatMap(names)
    .map((name) => `${name}\n`)
    .join('');
}
