import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import {
  expectation,
  type Expectations,
  judge,
  leftOutPattern,
  parseGinkgoReport,
  patternOf,
  refusal,
  type Spec,
} from '../conformance/report.ts';
import type { Steps } from '../containerd/walk-steps.ts';
import type { NodeConformance } from './build-node-conformance.ts';
import { until } from './kubectl.ts';
import { adminConfig } from './places.ts';
import type { Tour } from './tour.ts';

/** Tour of the steps that run Kubernetes' own tests of a node. */
export interface NodeConformanceTour extends Tour {
  readonly tests: NodeConformance;
  /** Regular expression over specs' names; undefined: all. */
  readonly focus: string | undefined;
}

type Runtime = 'podvm' | 'runc';

const list = v.object({
  $comment: v.string(),
  /** Specs that the run leaves out. */
  leftOut: v.array(expectation),
  /** Specs that skip themselves. */
  maySkip: v.array(expectation),
  /** Specs that must fail, by the runtime of the node. */
  podvm: v.array(refusal),
  runc: v.array(refusal),
});

/** The list of what may not pass. */
export function parseNodeExpectations(json: string): v.InferOutput<typeof list> {
  return v.parse(list, JSON.parse(json));
}

/** The other node gets no pods. */
export const cordonSteps: Steps<Tour> = [
  [
    'pods go to the node whose kubelet uses podvm alone',
    async ({ kubectl, second: { node } }) => {
      await until('the node has registered', () => kubectl.run('cordon', node.name));
    },
  ],
];

export const podvmSteps: Steps<NodeConformanceTour> = [
  ['the tests of a node pass where the kubelet uses podvm', (tour) => testNode(tour, 'podvm')],
];

export const runcSteps: Steps<NodeConformanceTour> = [
  [
    'pods go to the node whose kubelet uses containerd with runc alone',
    async ({ kubectl, first, second }) => {
      await kubectl.run('uncordon', second.node.name);
      await kubectl.run('cordon', first.node.name);
    },
  ],
  ['the tests of a node pass where the kubelet uses containerd with runc', (tour) => testNode(tour, 'runc')],
];

/** Failed specs that run a second time, one by one: many are timed, and the first time they share a machine. */
const mostAgain = 12;

async function testNode(tour: NodeConformanceTour, runtime: Runtime): Promise<void> {
  const { leftOut, maySkip, ...lists } = parseNodeExpectations(
    await readFile(join(import.meta.dirname, 'node-conformance.json'), 'utf8'),
  );
  const expected = { leftOut, maySkip, refused: lists[runtime] };
  const isWhole = tour.focus === undefined;
  const run = { report: `node-conformance-${runtime}.json`, processes: 4, focus: tour.focus, expected };
  const first = await runSpecs(tour, run);
  const failed = judge(first, expected, isWhole).failures.map(({ spec }) => spec);
  const isAgain = failed.length > 0 && failed.length <= mostAgain;
  const second = isAgain ? await runSpecs(tour, { ...run, processes: 1, focus: patternOf(failed) }) : [];
  const again = new Map(second.filter(({ name }) => failed.includes(name)).map((spec) => [spec.name, spec]));
  for (const { name, outcome } of again.values()) if (outcome === 'passed') tour.say(`flaky: ${name}`);

  const specs = first.map((spec) => again.get(spec.name) ?? spec);
  const { passed, failed: unexplained, refused, skipped, surprises } = judge(specs, expected, isWhole);
  tour.say(
    `${runtime}: ${passed + unexplained + refused} specs ran: ${passed} passed, ${unexplained} failed, ${refused} failed as the list says; ${skipped} were skipped`,
  );
  if (surprises.length > 0) throw new Error(surprises.join('\n'));
}

const timeout = '90m';
const label = 'NodeConformance';

interface Run {
  /** Name of the file for its report. */
  readonly report: string;
  /** Number of specs at a time. */
  readonly processes: number;
  readonly focus: string | undefined;
  readonly expected: Expectations;
}

/** Returns the specs with the label, and failures of set-up and clean-up. */
async function runSpecs(
  { tests, work, first, signal }: NodeConformanceTour,
  { report, processes, focus, expected }: Run,
): Promise<readonly Spec[]> {
  const skip = leftOutPattern(expected);
  const ginkgo = [
    ...[`--procs=${processes}`, `--timeout=${timeout}`, '--no-color', '--silence-skips'],
    ...[`--output-dir=${work}`, `--json-report=${report}`, `--label-filter=${label}`],
    ...(focus === undefined ? [] : [`--focus=${focus}`]),
    ...(skip === undefined ? [] : [`--skip=${skip}`]),
  ];
  const suite = [`--kubeconfig=${adminConfig}`, '--provider=local', '--num-nodes=1'];
  const code = await first.node.show(tests.ginkgo, [...ginkgo, tests.tests, '--', ...suite], signal);
  const json = await readFile(join(work, report), 'utf8').catch((cause: unknown) => {
    throw new Error(`ginkgo ended with ${code ?? 'a signal'} and without a report`, { cause });
  });
  return parseGinkgoReport(json).filter(({ name, outcome }) => outcome === 'failed' || name.includes(`[${label}]`));
}
