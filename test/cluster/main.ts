import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { messageOf } from '#base/errors.ts';
import { buildHelm } from '../../tools/chart/build-helm.ts';
import { goVersion } from '../conformance/go-module.ts';
import { walkSteps } from '../containerd/walk-steps.ts';
import { version } from '../kubelet/build-kubelet.ts';
import { buildAddOns } from './build-add-ons.ts';
import { buildKubernetes } from './build-kubernetes.ts';
import { buildNodeConformance } from './build-node-conformance.ts';
import { type Built, buildAll, startCluster, startContainerdWorker } from './cluster.ts';
import { adminConfig } from './places.ts';
import {
  addOnSuite,
  nodeConformanceSuite,
  type Part,
  type Suite,
  tourSuite,
  upgradeSuite,
  type Walk,
} from './suites.ts';
import type { Tour } from './tour.ts';

/*
 * `npm run cluster [-- [--suite tour|upgrade|add-ons|node-conformance] [--only PART,...] [--focus RE] [--stay]]`: a real control plane with two nodes, on
 * this machine: one whose kubelet uses podvm (in the suite `upgrade`, its containerd), and one whose containerd has it beside runc. Needs root, the result of `podvm
 * setup`, and a Go toolchain: a machine without one gets a message, and nothing fails. With `--only`, some parts of the
 * suite are left out; with `--focus`, the specs of the suite `node-conformance` whose names do not match; with `--stay` the
 * cluster stays until Ctrl-C.
 */
const cache = '/var/cache/podvm-conformance';
const options = {
  stay: { type: 'boolean', default: false },
  suite: { type: 'string', default: 'tour' },
  only: { type: 'string' },
  focus: { type: 'string' },
} as const;
const say = (text: string) => process.stderr.write(`cluster: ${text}\n`);

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const { signal } = stop;
  const { suite: walked, stay: stays, only, focus } = parseArgs({ options }).values;
  const go = await goVersion(signal);
  if (go === undefined) {
    say('SKIPPED: this machine has no Go toolchain (`go`), with which Kubernetes is built');
    return;
  }
  say(`building Kubernetes ${version}, CoreDNS, containerd and crictl with ${go}, unless they are there`);
  const kubernetes = await buildKubernetes(cache, signal);
  const { suite, ...ofSuite } = await buildSuite(walked, { kubernetes, focus, signal });
  const parts = partsOf(suite, only);
  const built = await buildAll(cache, kubernetes, ofSuite, signal);

  await using undo = new AsyncDisposableStack();
  const cluster = undo.use(
    await timed('etcd, API server, controller manager and scheduler run', () => startCluster(built, suite)),
  );
  const [node1, node2] = cluster.nodes;
  const failures: unknown[] = [];
  const walk: Walk = async (steps, tour) => {
    signal.throwIfAborted();
    await walkSteps(steps, tour, say).catch((error: unknown) => failures.push(error));
  };
  const first = undo.use(await timed(suite.first.what, () => suite.first.start(node1)));
  const second = undo.use(
    await timed('a node whose kubelet uses containerd with runc runs', () => startContainerdWorker(node2)),
  );
  const tour: Tour = { ...cluster, first, second, say, signal };
  for (const part of [suite.begin, ...parts]) await part(walk, tour);
  if (stays) await stay(tour, signal);
  await suite.leave(walk, tour);
  if (failures.length > 0) throw new AggregateError(failures, `${failures.length} parts of the tour failed`);
  say('passed');
}

interface SuiteOptions {
  /** Directory of the built Kubernetes. */
  readonly kubernetes: string;
  readonly focus: string | undefined;
  readonly signal: AbortSignal;
}

/** A suite by its name, with the programs that it needs. */
async function buildSuite(
  name: string,
  { kubernetes, focus, signal }: SuiteOptions,
): Promise<Pick<Built, 'addOns' | 'tests'> & { readonly suite: Suite }> {
  switch (name) {
    case 'tour':
      return { suite: tourSuite, addOns: undefined, tests: undefined };
    case 'upgrade':
      return { suite: upgradeSuite(await buildHelm(cache, signal)), addOns: undefined, tests: undefined };
    case 'add-ons': {
      const addOns = await buildAddOns(cache, kubernetes, signal);
      return { suite: addOnSuite(addOns), addOns, tests: undefined };
    }
    case 'node-conformance': {
      const tests = await buildNodeConformance(cache, kubernetes, signal);
      return { suite: nodeConformanceSuite(tests, focus), addOns: undefined, tests };
    }
    default:
      throw new Error(`Cannot walk the suite "${name}": expected tour, upgrade, add-ons or node-conformance`);
  }
}

/** The parts of a suite with these names; default: all. */
function partsOf({ parts }: Suite, names: string | undefined): readonly Part[] {
  const known = Object.keys(parts);
  const chosen = names?.split(',') ?? known;
  for (const name of chosen) {
    if (!known.includes(name)) throw new Error(`Cannot walk the part "${name}": expected ${known.join(', ')}`);
  }
  return Object.entries(parts).flatMap(([name, part]) => (chosen.includes(name) ? [part] : []));
}

async function timed<T>(what: string, make: () => Promise<T>): Promise<T> {
  const startedMs = performance.now();
  const made = await make();
  say(`${what} (${Math.round(performance.now() - startedMs)} ms)`);
  return made;
}

/** Leaves the cluster to the user until Ctrl-C. */
async function stay({ nodes, work }: Tour, signal: AbortSignal): Promise<void> {
  say(`the cluster stays until Ctrl-C; its files are in ${work}`);
  for (const { name, pid } of nodes)
    say(`${name}: nsenter --target ${pid} --all kubectl --kubeconfig ${adminConfig} get pod -A`);
  if (!signal.aborted) await once(signal, 'abort');
}

try {
  await main();
} catch (error) {
  say(`FAILED: ${messageOf(error)}`);
  process.exitCode = 1;
}
