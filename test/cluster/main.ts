import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { messageOf } from '#base/errors.ts';
import { goVersion } from '../conformance/go-module.ts';
import { type Steps, walkSteps } from '../containerd/walk-steps.ts';
import { version } from '../kubelet/build-kubelet.ts';
import { appSteps } from './app-steps.ts';
import { buildAll, startCluster, startContainerdWorker, startPodvmWorker } from './cluster.ts';
import { installSteps, upgradeSteps } from './deploy-steps.ts';
import { drainSteps } from './drain-steps.ts';
import { kubectlSteps } from './kubectl-steps.ts';
import { leaveSteps } from './leave-steps.ts';
import { networkSteps } from './network-steps.ts';
import { adminConfig } from './places.ts';
import { policySteps } from './policy-steps.ts';
import { restartSteps } from './restart-steps.ts';
import { systemSteps } from './system-steps.ts';
import type { Tour } from './tour.ts';
import { workloadSteps } from './workload-steps.ts';

/*
 * `npm run cluster [-- --stay]`: a real control plane with two nodes, one whose kubelet uses podvm and one whose
 * containerd has it beside runc, on this machine. Needs root, the result of `podvm setup`, and a Go toolchain: a
 * machine without one gets a message, and nothing fails. With `--stay` the cluster stays until Ctrl-C.
 */
const cache = '/var/cache/podvm-conformance';
const say = (text: string) => process.stderr.write(`cluster: ${text}\n`);

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const { signal } = stop;
  const { values } = parseArgs({ options: { stay: { type: 'boolean', default: false } } });
  const go = await goVersion(signal);
  if (go === undefined) {
    say('SKIPPED: this machine has no Go toolchain (`go`), with which Kubernetes is built');
    return;
  }
  say(`building Kubernetes ${version}, CoreDNS, containerd and crictl with ${go}, unless they are there`);
  const built = await buildAll(cache, signal);

  await using undo = new AsyncDisposableStack();
  const cluster = undo.use(
    await timed('etcd, API server, controller manager and scheduler run', () => startCluster(built)),
  );
  const [node1, node2] = cluster.nodes;
  const failures: unknown[] = [];
  const walk = async <T>(steps: Steps<T>, tour: T) => {
    signal.throwIfAborted();
    await walkSteps(steps, tour, say).catch((error: unknown) => failures.push(error));
  };
  const first = undo.use(await timed('a node whose kubelet uses podvm runs', () => startPodvmWorker(node1)));
  const second = undo.use(
    await timed('a node whose kubelet uses containerd with runc runs', () => startContainerdWorker(node2)),
  );
  const tour: Tour = { ...cluster, first, second, say };
  await walk(installSteps, tour);
  await walk(systemSteps, tour);
  await walk(networkSteps, tour);
  await walk(appSteps, tour);
  await walk(policySteps, tour);
  for (const at of [first, second]) {
    say(`at ${at.node.name}:`);
    await walk([...workloadSteps, ...kubectlSteps, ...restartSteps], { ...tour, at });
  }
  await walk(upgradeSteps, tour);
  await walk(drainSteps, tour);
  if (values.stay) await stay(tour, signal);
  await walk(leaveSteps, tour);
  if (failures.length > 0) throw new AggregateError(failures, `${failures.length} parts of the tour failed`);
  say('passed');
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
