import type { ComponentChildren } from 'preact';
import * as v from 'valibot';
import { podSummarySchema, type PodSummary } from '#api/pods.ts';
import { call, getText } from './api.ts';
import { ageText, bytesText, coresText } from './format.ts';
import { keyOf, podPath } from './pod-name.ts';
import { usePoll } from './poll.ts';
import { type Route, setQuery, withQuery } from './route.ts';
import { Loading, Problem, Status, statusOf } from './ui.tsx';
import { type PodUsage, usage } from './usage.ts';
import { rowHeight, useWindow } from './window.ts';

interface Row {
  readonly pod: PodSummary;
  readonly used: PodUsage | undefined;
}

interface Column {
  readonly key: string;
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** Value by which rows are sorted. */
  readonly by: (row: Row) => string | number;
  /** `number`: aligned to the right; `most`, `mid`, `wide`: shown where there is room. */
  readonly class?: string;
}

const overheadOf = ({ used }: Row): number | undefined =>
  used?.machineBytes === undefined || used.memoryBytes === undefined ? undefined : used.machineBytes - used.memoryBytes;

const columns: readonly Column[] = [
  {
    key: 'name',
    title: 'Name',
    cell: ({ pod }) => (
      <a href={podPath(pod)}>
        <span class="faint">{pod.namespace}/</span>
        {pod.name}
      </a>
    ),
    by: ({ pod }) => keyOf(pod),
    class: 'grow',
  },
  {
    key: 'status',
    title: 'Status',
    cell: ({ pod }) => <Status text={statusOf(pod)} />,
    by: ({ pod }) => statusOf(pod),
  },
  { key: 'ready', title: 'Ready', cell: ({ pod }) => pod.ready, by: ({ pod }) => pod.ready, class: 'number mid' },
  {
    key: 'restarts',
    title: 'Restarts',
    cell: ({ pod }) => pod.restarts,
    by: ({ pod }) => pod.restarts,
    class: 'number mid',
  },
  {
    key: 'cpu',
    title: 'CPU',
    cell: ({ used }) => coresText(used?.cores),
    by: ({ used }) => used?.cores ?? -1,
    class: 'number mid',
  },
  {
    key: 'machine-cpu',
    title: 'VM CPU',
    cell: ({ used }) => coresText(used?.machineCores),
    by: ({ used }) => used?.machineCores ?? -1,
    class: 'number wide',
  },
  {
    key: 'memory',
    title: 'Memory',
    cell: ({ used }) => bytesText(used?.memoryBytes),
    by: ({ used }) => used?.memoryBytes ?? -1,
    class: 'number most',
  },
  {
    key: 'request',
    title: 'Request',
    cell: ({ used }) => bytesText(used?.memoryRequestBytes),
    by: ({ used }) => used?.memoryRequestBytes ?? -1,
    class: 'number wide',
  },
  {
    key: 'limit',
    title: 'Limit',
    cell: ({ used }) => bytesText(used?.memoryLimitBytes),
    by: ({ used }) => used?.memoryLimitBytes ?? Infinity,
    class: 'number wide',
  },
  {
    key: 'machine',
    title: 'VM memory',
    cell: ({ used }) => bytesText(used?.machineBytes),
    by: ({ used }) => used?.machineBytes ?? -1,
    class: 'number mid',
  },
  {
    key: 'overhead',
    title: 'Overhead',
    cell: (row) => bytesText(overheadOf(row)),
    by: (row) => overheadOf(row) ?? -Infinity,
    class: 'number wide',
  },
  {
    key: 'age',
    title: 'Age',
    cell: ({ pod }) => ageText(pod.createdAt),
    by: ({ pod }) => -Date.parse(pod.createdAt),
    class: 'number mid',
  },
  {
    key: 'owner',
    title: 'Owner',
    cell: ({ pod }) => pod.owner ?? 'podvm',
    by: ({ pod }) => pod.owner ?? 'podvm',
    class: 'wide',
  },
  {
    key: 'address',
    title: 'Address',
    cell: ({ pod }) => pod.addresses[0] ?? '–',
    by: ({ pod }) => pod.addresses[0] ?? '',
    class: 'wide code',
  },
];

/** All words of a pod that a search finds. */
const textOf = (pod: PodSummary): string =>
  [
    keyOf(pod),
    statusOf(pod),
    pod.owner ?? 'podvm',
    ...pod.addresses,
    ...(pod.images ?? []),
    ...Object.entries(pod.labels ?? {}).map(([key, value]) => `${key}=${value}`),
  ]
    .join(' ')
    .toLowerCase();

/** The pods that have every word of the search, in the order of a column; `-` before its key turns it round. */
export function shownRows(rows: readonly Row[], search: string, sort: string): readonly Row[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter(({ pod }) => {
    const text = textOf(pod);
    return words.every((word) => text.includes(word));
  });
  const column = columns.find(({ key }) => key === sort.replace(/^-/, '')) ?? columns[0];
  const direction = sort.startsWith('-') ? -1 : 1;
  const compare = (one: Row, other: Row): number => {
    const [a, b] = [column?.by(one) ?? '', column?.by(other) ?? ''];
    return typeof a === 'number' && typeof b === 'number'
      ? a - b
      : String(a).localeCompare(String(b), 'en', { numeric: true });
  };
  return found.toSorted(
    (one, other) => direction * compare(one, other) || keyOf(one.pod).localeCompare(keyOf(other.pod)),
  );
}

/** The list of pods. Search, order and whether ended pods are listed are in the address. */
export function PodsPage({ route: { query } }: { readonly route: Route }) {
  const search = query.get('q') ?? '';
  const sort = query.get('sort') ?? 'name';
  const withEnded = query.get('ended') === 'true';
  const pods = usePoll(`pods ${withEnded}`, 2000, (signal) =>
    call('GET', `/v1/pods?ended=${withEnded}`, v.array(podSummarySchema), { signal }),
  );
  usePoll('metrics', 5000, async (signal) => usage.take(await getText('/metrics', signal)));
  const all = (pods.data ?? []).map((pod) => ({
    pod,
    used: pod.endedAt === undefined ? usage.pods.get(keyOf(pod)) : undefined,
  }));
  const rows = shownRows(all, search, sort);
  const { body, first, count } = useWindow(rows.length);
  const shown = rows.slice(first, first + count);
  return (
    <main>
      <div class="head">
        <h1>Pods</h1>
        <input
          type="search"
          aria-label="Search pods"
          placeholder="Search name, status, label, image, address…"
          value={search}
          onInput={(event) => setQuery({ q: event.currentTarget.value })}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={withEnded}
            onChange={(event) => setQuery({ ended: event.currentTarget.checked ? 'true' : '' })}
          />
          Ended pods
        </label>
        <span class="faint count" role="status">
          {pods.data === undefined
            ? ''
            : rows.length === all.length
              ? `${all.length} pods`
              : `${rows.length} of ${all.length} pods`}
        </span>
      </div>
      <Problem error={pods.error} />
      {pods.data === undefined && pods.error === undefined ? <Loading /> : null}
      {pods.data === undefined ? null : (
        <table class="list" aria-rowcount={rows.length + 1}>
          <thead>
            <tr aria-rowindex={1}>
              {columns.map((column) => (
                <HeadCell key={column.key} column={column} sort={sort} />
              ))}
            </tr>
          </thead>
          <tbody ref={body}>
            {first === 0 ? null : <Space rows={first} />}
            {shown.map((row, at) => (
              <tr key={`${keyOf(row.pod)} ${row.pod.createdAt}`} aria-rowindex={first + at + 2}>
                {columns.map(({ key, class: its, cell }) => (
                  <td key={key} class={its}>
                    {cell(row)}
                  </td>
                ))}
              </tr>
            ))}
            {first + count >= rows.length ? null : <Space rows={rows.length - first - count} />}
          </tbody>
        </table>
      )}
      {pods.data === undefined || rows.length > 0 ? null : (
        <p class="empty">
          {all.length > 0 ? (
            'No pod has these words.'
          ) : (
            <>
              No pod runs. Start one with <code>podvm run IMAGE</code>.
            </>
          )}
        </p>
      )}
    </main>
  );
}

/** Room for rows that are out of sight. */
const Space = ({ rows }: { readonly rows: number }) => (
  <tr aria-hidden="true" class="space">
    <td colSpan={columns.length} style={{ height: `${rows * rowHeight}px` }} />
  </tr>
);

function HeadCell({ column: { key, title, class: its }, sort }: { readonly column: Column; readonly sort: string }) {
  const isSorted = sort.replace(/^-/, '') === key;
  const isDown = sort.startsWith('-');
  return (
    <th
      scope="col"
      class={its?.replace(' code', '')}
      aria-sort={isSorted ? (isDown ? 'descending' : 'ascending') : 'none'}
    >
      <a href={withQuery({ sort: isSorted && !isDown ? `-${key}` : key })}>
        {title}
        <span aria-hidden="true" class="arrow">
          {isSorted ? (isDown ? '↓' : '↑') : ''}
        </span>
      </a>
    </th>
  );
}
