/** Figures of `GET /metrics`, in Prometheus' text format. */
export interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export class Metrics {
  readonly #byName = new Map<string, Series[]>();
  /** Time at which they were read, in `ms`. Other clocks of a browser stand still while its host sleeps. */
  readonly atMs = Date.now();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const [, name, labels = '', value] = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)/i.exec(line) ?? [];
      if (name === undefined) continue;
      const series = { labels: labelsOf(labels), value: value === '+Inf' ? Infinity : Number(value) };
      const known = this.#byName.get(name);
      if (known === undefined) this.#byName.set(name, [series]);
      else known.push(series);
    }
  }

  all(name: string): readonly Series[] {
    return this.#byName.get(name) ?? [];
  }

  /** The value of the only series, or of the first with these labels. */
  one(name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
    return this.all(name).find((series) => Object.entries(labels).every(([key, value]) => series.labels[key] === value))
      ?.value;
  }

  sum(name: string): number | undefined {
    const all = this.all(name);
    return all.length === 0 ? undefined : all.reduce((sum, { value }) => sum + value, 0);
  }

  /** A quantile of a histogram, interpolated within its bucket as Prometheus does; undefined without observations. */
  quantile(name: string, labels: Readonly<Record<string, string>>, q: number): number | undefined {
    const buckets = this.all(`${name}_bucket`)
      .filter((series) => Object.entries(labels).every(([key, value]) => series.labels[key] === value))
      .map((series) => ({
        upTo: series.labels['le'] === '+Inf' ? Infinity : Number(series.labels['le']),
        count: series.value,
      }))
      .sort((one, other) => one.upTo - other.upTo);
    const total = buckets.at(-1)?.count ?? 0;
    const at = buckets.findIndex(({ count }) => count >= q * total);
    const bucket = buckets[at];
    if (total === 0 || bucket === undefined) return undefined;
    const below = buckets[at - 1] ?? { upTo: 0, count: 0 };
    if (bucket.upTo === Infinity) return below.upTo;
    const share = bucket.count === below.count ? 1 : (q * total - below.count) / (bucket.count - below.count);
    return below.upTo + (bucket.upTo - below.upTo) * share;
  }
}

function labelsOf(text: string): Readonly<Record<string, string>> {
  const labels: Record<string, string> = Object.create(null) as Record<string, string>; // SAFE: no name is inherited
  for (const [, key = '', value = ''] of text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
    labels[key] = value.replaceAll(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char));
  return labels;
}
