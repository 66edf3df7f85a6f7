import type { HistogramReading } from '#base/histogram.ts';
import { helpOf, type MetricRow, type Sample, type Value } from './metric-row.ts';

/**
 * The text formats of Prometheus and of OpenMetrics. This code is ours and one page long: prom-client, as measured,
 * holds every series in memory between scrapes, takes three times as long for series that come and go with pods, and
 * cannot set a counter to the kernel's count. `promtool check metrics` checks the output.
 */
export const formats = {
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
  openMetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
} as const;
export type Format = keyof typeof formats;

/** The format that a client prefers, by its `Accept` header. */
export function formatFor(accept: string | undefined): Format {
  return accept?.includes('application/openmetrics-text') === true ? 'openMetrics' : 'prometheus';
}

/** A subject of metrics, with values of the labels that all its metrics have. */
export interface Labelled<S> {
  readonly subject: S;
  readonly labels: readonly string[];
}

/** Rows of a table. */
export type Rows<S> = readonly (readonly [string, MetricRow<S> | MetricRow<S, HistogramReading>])[];

/** Lines of one subject, for each row of a table; the same in both formats. */
export type Written = readonly string[];

/**
 * Writes the metrics of one subject from a table. A series must not occur twice: a scraper would refuse all of them.
 */
export function writeSubject<S>(
  rows: Rows<S>,
  labelKeys: readonly string[],
  { labels, subject }: Labelled<S>,
): Written {
  const prefix = pairsOf(labelKeys, labels);
  return rows.map(([name, row]) => {
    const seen = new Set<string>();
    let lines = '';
    for (const sample of row.of(subject)) {
      const all = joined(prefix, pairsOf(row.labels, sample.labels));
      if (seen.has(all)) continue;
      seen.add(all);
      lines += linesOf(name, all, sample.value);
    }
    return lines;
  });
}

/** Joins the families of tables, one after the other, as both formats require. */
export class Exposition {
  readonly #format: Format;
  readonly #parts: string[] = [];

  constructor(format: Format) {
    this.#format = format;
  }

  /** `subjects`: lines of each subject, whose labels differ. */
  add<S>(rows: Rows<S>, subjects: readonly Written[]): void {
    for (const [at, [name, row]] of rows.entries()) {
      const lines = subjects.map((written) => written[at] ?? '').join('');
      if (lines !== '') this.#parts.push(headOf(name, row, this.#format), lines);
    }
  }

  toString(): string {
    return `${this.#parts.join('')}${this.#format === 'openMetrics' ? '# EOF\n' : ''}`;
  }
}

function headOf(name: string, row: Pick<MetricRow, 'type' | 'about' | 'unit'>, format: Format): string {
  const isCounter = row.type === 'counter';
  let [family, type]: [string, string] = [name, row.type];
  if (format === 'openMetrics' && isCounter) {
    // In OpenMetrics, the samples of a counter have a suffix that their family lacks; cAdvisor's `failcnt` has none.
    if (name.endsWith(counterSuffix)) family = name.slice(0, -counterSuffix.length);
    else type = 'unknown';
  }
  return `# HELP ${family} ${helpText(helpOf(row), format)}\n# TYPE ${family} ${type}\n`;
}

function linesOf(name: string, labels: string, value: Sample<Value | HistogramReading>['value']): string {
  if (typeof value !== 'object') return lineOf(name, labels, value);
  const bucket = (le: string, count: number) => lineOf(`${name}_bucket`, joined(labels, `le="${le}"`), count);
  const buckets = value.buckets.map(({ upTo, count }) => bucket(boundText(upTo), count)).join('');
  const all = bucket('+Inf', value.count);
  return `${buckets}${all}${lineOf(`${name}_sum`, labels, value.sum)}${lineOf(`${name}_count`, labels, value.count)}`;
}

const lineOf = (name: string, labels: string, value: Value): string =>
  labels === '' ? `${name} ${value}\n` : `${name}{${labels}} ${value}\n`;

const counterSuffix = '_total';

const joined = (one: string, other: string): string => (one === '' || other === '' ? one + other : `${one},${other}`);

/** OpenMetrics wants the bound as a float. */
const boundText = (bound: number): string => (Number.isInteger(bound) ? `${bound}.0` : String(bound));

/** A label without a value is the same as none. */
function pairsOf(keys: readonly string[], values: readonly string[]): string {
  let pairs = '';
  for (const [at, key] of keys.entries()) {
    const value = values[at] ?? '';
    if (value === '') continue;
    pairs += `${pairs === '' ? '' : ','}${key}="${escaped(value)}"`;
  }
  return pairs;
}

/** Longest label value, in UTF-16 units: names of a guest are bounded before, an image's name by its grammar. */
const maxValueLength = 512;

const escaped = (value: string): string =>
  value
    .slice(0, maxValueLength)
    .toWellFormed()
    .replaceAll(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`));

/** Prometheus does not escape quotes in a help text; OpenMetrics does. */
const helpText = (text: string, format: Format): string =>
  text.replaceAll(format === 'openMetrics' ? /[\\"\n]/g : /[\\\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`));
