import * as v from 'valibot';

/** Result of one spec of the suite. */
export interface Spec {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Why it failed, or was skipped; '' for one that was left out by a filter. */
  readonly message: string;
  readonly ms: number;
}

const specReport = v.object({
  ContainerHierarchyTexts: v.nullish(v.array(v.string()), []),
  LeafNodeText: v.string(),
  LeafNodeType: v.string(),
  State: v.string(),
  /** Duration in nanoseconds. */
  RunTime: v.number(),
  Failure: v.optional(v.object({ Message: v.optional(v.string(), '') })),
});
const ginkgoReport = v.array(v.object({ SpecReports: v.nullish(v.array(specReport), []) }));

/** Reads the report of `-ginkgo.json-report`. Specs that neither passed nor were skipped have failed. */
export function parseGinkgoReport(json: string): readonly Spec[] {
  return v
    .parse(ginkgoReport, JSON.parse(json))
    .flatMap((suite) => suite.SpecReports)
    .filter(({ LeafNodeType, State }) => LeafNodeType === 'It' || State === 'failed')
    .map((report) => ({
      name: [...(report.ContainerHierarchyTexts ?? []), report.LeafNodeText || report.LeafNodeType]
        .join(' ')
        .replace(/^\[k8s\.io\] /, ''),
      outcome: outcomeOf(report.State),
      message: report.Failure?.Message ?? '',
      ms: Math.round(report.RunTime / 1e6),
    }));
}

function outcomeOf(state: string): Spec['outcome'] {
  if (state === 'passed') return 'passed';
  return state === 'skipped' || state === 'pending' ? 'skipped' : 'failed';
}

/** One line of a list such as `expected.json`. */
export const expectation = v.object({
  /** The spec's name, or its prefix followed by `*`. */
  spec: v.pipe(v.string(), v.minLength(1)),
  reason: v.pipe(v.string(), v.minLength(1)),
  /** First version of the suite that has the spec, as `2.4`. Absent: each has it. */
  since: v.optional(v.pipe(v.string(), v.regex(/^\d+\.\d+$/))),
  /** Last version for which the line holds, as `1.7`. Absent: there is none. */
  until: v.optional(v.pipe(v.string(), v.regex(/^\d+\.\d+$/))),
});
/** A spec that must fail with a message that contains `says`. */
export const refusal = v.object({ ...expectation.entries, says: v.pipe(v.string(), v.minLength(1)) });
const expectations = v.object({
  $comment: v.optional(v.string()),
  /** Specs that the run leaves out. */
  leftOut: v.array(expectation),
  /** Specs that may skip themselves on some hosts, and pass on others. */
  maySkip: v.array(expectation),
  /** Specs that must fail with a refusal that contains `says`, since they need features that a machine lacks. */
  refused: v.array(refusal),
});
export type Expectations = v.InferOutput<typeof expectations>;
type Expectation = Expectations['leftOut'][number];

export function parseExpectations(json: string): Expectations {
  return v.parse(expectations, JSON.parse(json));
}

/** The lines of the list for the specs that one version of the suite has, such as `2.2`. */
export function expectationsOf(version: string, { leftOut, maySkip, refused }: Expectations): Expectations {
  const isBefore = (one: string, other: string) => one.localeCompare(other, 'en', { numeric: true }) < 0;
  const has = ({ since, until }: Expectation) =>
    (since === undefined || !isBefore(version, since)) && (until === undefined || !isBefore(until, version));
  return { leftOut: leftOut.filter(has), maySkip: maySkip.filter(has), refused: refused.filter(has) };
}

export interface Verdict {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Number of specs that failed by a refusal that the list names. */
  readonly refused: number;
  readonly failures: readonly { readonly spec: string; readonly message: string }[];
  /** Differences from the list; empty if there are none. */
  readonly surprises: readonly string[];
}

/** Compares the results with the expectations. `isWhole`: only specs that the list leaves out were left out. */
export function judge(specs: readonly Spec[], expected: Expectations, isWhole: boolean): Verdict {
  const of = (outcome: Spec['outcome']) => specs.filter((spec) => spec.outcome === outcome);
  const isRefused = ({ name, message }: Spec) => {
    const line = find(expected.refused, name);
    return line !== undefined && message.includes(line.says);
  };
  const failures = of('failed').filter((spec) => !isRefused(spec));
  const surprises = [
    ...failures.map(({ name, message }) => `failed: ${name}: ${firstLine(message)}`),
    ...of('skipped')
      .filter(
        ({ name, message }) =>
          find([...expected.leftOut, ...(message === '' ? [] : expected.maySkip)], name) === undefined,
      )
      .filter(({ message }) => isWhole || message !== '')
      .map(({ name, message }) => `skipped: ${name}: ${firstLine(message) || 'left out'}`),
    ...of('passed')
      .filter(({ name }) => find(expected.refused, name) !== undefined)
      .map(({ name }) => `passed, but is on the list of what is refused: ${name}`),
    ...(isWhole ? unmatched(expected, specs) : []),
  ];
  return {
    passed: of('passed').length,
    failed: failures.length,
    skipped: of('skipped').length,
    refused: of('failed').length - failures.length,
    failures: failures.map(({ name, message }) => ({ spec: name, message })),
    surprises,
  };
}

/** Returns entries of the list that match no spec. */
function unmatched(expected: Expectations, specs: readonly Spec[]): readonly string[] {
  return [...expected.leftOut, ...expected.maySkip, ...expected.refused]
    .filter((line) => !specs.some(({ name }) => matches(line, name)))
    .map(({ spec }) => `on the list, but there is no such spec: ${spec}`);
}

/** Returns the line of the list for a spec. */
export function find<T extends Expectation>(list: readonly T[], name: string): T | undefined {
  return list.find((line) => matches(line, name));
}

function matches({ spec }: Expectation, name: string): boolean {
  return spec.endsWith('*') ? name.startsWith(spec.slice(0, -1)) : name === spec;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}

/** Returns a regular expression for `-ginkgo.skip` that matches exactly the specs that the list leaves out. */
export function leftOutPattern(expected: Expectations): string | undefined {
  return expected.leftOut.length === 0 ? undefined : patternOf(expected.leftOut.map(({ spec }) => spec));
}

/** Returns a regular expression that matches names, or their prefixes followed by `*`. */
export function patternOf(specs: readonly string[]): string {
  return specs.map((spec) => spec.replace(/\*$/, '').replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');
}
