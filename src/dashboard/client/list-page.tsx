import type { ComponentChildren } from 'preact';
import type * as v from 'valibot';
import { call } from './api.ts';
import { bytesText } from './format.ts';
import { usePoll } from './poll.ts';
import { type Route, setQuery } from './route.ts';
import { Loading, Problem } from './ui.tsx';

interface ListedColumn<Row> {
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** As in the list of pods. */
  readonly class?: string;
}

/** A page with one list of the node. */
interface List<Row> {
  readonly title: string;
  readonly path: string;
  readonly schema: v.GenericSchema<unknown, readonly Row[]>;
  /** What identifies a row; rows are sorted by it. */
  readonly keyOf: (row: Row) => string;
  /** Words that a search finds. */
  readonly wordsOf: (row: Row) => readonly string[];
  readonly bytesOf: (row: Row) => number;
  readonly columns: readonly ListedColumn<Row>[];
  readonly empty: ComponentChildren;
}

/** Shows a list. Its search is in the address. */
export function ListPage<Row>({ list, route: { query } }: { readonly list: List<Row>; readonly route: Route }) {
  const { title, keyOf, wordsOf, columns } = list;
  const loaded = usePoll(list.path, 5000, (signal) => call('GET', list.path, list.schema, { signal }));
  const search = query.get('q') ?? '';
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const isFound = (row: Row) => {
    const text = wordsOf(row).join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const byKey = (one: Row, other: Row) => keyOf(one).localeCompare(keyOf(other), 'en', { numeric: true });
  const rows = (loaded.data ?? []).filter(isFound).toSorted(byKey);
  const sum = bytesText(rows.reduce((bytes, row) => bytes + list.bytesOf(row), 0));
  return (
    <main>
      <div class="head">
        <h1>{title}</h1>
        <input
          type="search"
          aria-label={`Search ${title.toLowerCase()}`}
          placeholder="Search…"
          value={search}
          onInput={(event) => setQuery({ q: event.currentTarget.value })}
        />
        <span class="faint count" role="status">
          {loaded.data === undefined ? '' : `${rows.length} of ${loaded.data.length}, ${sum}`}
        </span>
      </div>
      <Problem error={loaded.error} />
      {loaded.data === undefined && loaded.error === undefined ? <Loading /> : null}
      {loaded.data?.length === 0 ? <p class="empty">{list.empty}</p> : null}
      {rows.length === 0 ? null : (
        <table class="list">
          <thead>
            <tr>
              {columns.map((column) => (
                <th key={column.title} scope="col" class={column.class?.replace(' code', '')}>
                  {column.title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={keyOf(row)}>
                {columns.map((column) => (
                  <td key={column.title} class={column.class}>
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </main>
  );
}

/** Declares a list with the types of its rows. */
export const listOf = <Row,>(list: List<Row>): List<Row> => list;
