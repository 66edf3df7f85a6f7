import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { parseAllDocuments } from 'yaml';
import { tryContainerdPod } from '#daemon/containerd/try-containerd-pod.ts';
import { plainManifests } from '../../tools/chart/chart.ts';
import type { Steps } from '../containerd/walk-steps.ts';
import type { Worker } from './cluster.ts';
import { until } from './kubectl.ts';
import { restart } from './node-namespaces.ts';
import { images, kernel } from './places.ts';
import { placesOf } from './restart-steps.ts';
import type { Tour } from './tour.ts';
import { containerdSocket, serves } from './worker.ts';

/** What an installation gives the cluster, by manifests or by Helm. */
export const classSteps: Steps<Tour> = [
  ['pods of its RuntimeClass are in machines there, with their overhead', hasClass],
];

/** Installation of podvm on the containerd node, from the node image of this checkout. */
export const installSteps: Steps<Tour> = [
  ['deploy/podvm.yaml installs podvm on the labelled node', installs],
  ['the pod by which `podvm install containerd --restart` tries containerd runs', triesPod],
  ...classSteps,
];

/** Changed settings, by which the node is installed again. */
export const upgradeSteps: Steps<Tour> = [['changed settings are installed without the end of a pod', upgrades]];

/** What was installed, written when all else is done. */
export const mark = '/opt/podvm/.installed-by-podvm-node';
const filesBefore = '/run/files-before';
/** Lists the files by which the node differs from the host, apart from those of steps. */
const listFiles = `find /run/.node/*/upper ! -type d ! -path '*/podvm-cluster-*' | sort`;

const annotations = ['spec', 'template', 'metadata', 'annotations'];
const installer = ['spec', 'template', 'spec', 'initContainers', 0];
const directories = ['--program', '/opt/podvm', '--root', '/var/lib/podvm'];

/** The plain manifests, with the image in a registry, as an administrator would change them for an action. */
async function deployment(action: 'install' | 'uninstall', settings?: object): Promise<string> {
  const text = await readFile(plainManifests, 'utf8');
  const documents = parseAllDocuments(text.replaceAll(/"localhost\/podvm\/node:[^"]+"/g, images.node));
  for (const document of documents) {
    if (document.get('kind') !== 'DaemonSet') continue;
    document.setIn([...annotations, 'podvm.dev/settings'], JSON.stringify(settings ?? {}));
    const words = settings === undefined ? [] : ['--settings', '/settings/podvm.yaml'];
    for (const word of words) document.addIn([...installer, 'args'], word);
    if (action === 'install') continue;
    document.setIn([...installer, 'name'], action);
    document.setIn([...installer, 'args'], [action, ...directories, '--state']);
    document.deleteIn(['spec', 'template', 'spec', 'containers', 0, 'readinessProbe']);
  }
  return documents.map(String).join('---\n');
}

async function installs(tour: Tour): Promise<void> {
  const { kubectl } = tour;
  await labelNode(tour, tour.second);
  await kubectl.run('create', 'namespace', 'podvm');
  await kubectl.apply(await deployment('install'));
  await beginInstalled(tour);
}

/** Notes the files of a node, and chooses it for the installation. */
export async function labelNode({ kubectl }: Tour, { node }: Worker): Promise<void> {
  await node.run('sh', ['-c', `${listFiles} >${filesBefore}`]);
  const label = ['label', 'node', node.name, 'podvm.dev/node=true', '--overwrite'];
  await until('the node has registered', () => kubectl.run(...label));
}

/** Waits for the installation, and does what systemd would: the node has none. */
export async function beginInstalled({ kubectl, second: { node, podvm, containerd } }: Tour): Promise<void> {
  await until('the node is installed', () => node.run('test', ['-e', mark]));
  await podvm.begin();
  await restart(containerd, 'SIGTERM');
  await serves(node, containerdSocket);
  await kubectl.rolledOut('ds/podvm', 'podvm');
}

async function triesPod({ second: { node } }: Tour): Promise<void> {
  await tryContainerdPod(`/proc/${node.pid}/root${containerdSocket}`, AbortSignal.timeout(120_000));
}

const overhead = v.object({
  spec: v.object({ nodeName: v.string(), overhead: v.object({ cpu: v.string(), memory: v.string() }) }),
});

export async function hasClass({ kubectl, second }: Tour): Promise<void> {
  const flags = [`--image=${images.busybox}`, '--restart=Never', '--overrides={"spec":{"runtimeClassName":"podvm"}}'];
  await kubectl.run('run', 'classed', ...flags, '--command', '--', 'uname', '-r');
  await kubectl.run('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/classed', '--timeout=240s');
  assert.notEqual((await kubectl.run('logs', 'classed')).trim(), kernel);
  const { spec } = await kubectl.json(overhead, 'get', 'pod', 'classed');
  assert.deepEqual(spec, { nodeName: second.node.name, overhead: { cpu: '100m', memory: '96Mi' } });
  await kubectl.run('delete', 'pod', 'classed');
}

async function upgrades(tour: Tour): Promise<void> {
  const change = async () => await tour.kubectl.apply(await deployment('install', { logFormat: 'json' }));
  await keepsPods(tour, change, ({ node }) => node.run('grep', ['logFormat', mark]));
  assert.match(await readFile(tour.second.podvm.logFile, 'utf8'), /^\{.*"serving/m);
}

/** Changes the installation, which ends no pod. `isThere` fails until the change is on the node. */
export async function keepsPods(
  { kubectl, second }: Tour,
  change: () => Promise<unknown>,
  isThere: (worker: Worker) => Promise<unknown>,
): Promise<void> {
  const before = await placesOf(kubectl);
  await change();
  await until('the settings are installed', () => isThere(second));
  await restart(second.podvm, 'SIGTERM');
  await kubectl.rolledOut('ds/podvm', 'podvm');
  await until('the pods are as they were', async () => assert.deepEqual(await placesOf(kubectl), before));
}

/** Removes podvm from the containerd node as an administrator would. */
export async function removeFromNode(tour: Tour): Promise<void> {
  const { kubectl, second } = tour;
  await leavesNode(tour, async () => await kubectl.apply(await deployment('uninstall')));
  await kubectl.run('delete', 'namespace', 'podvm');
  await kubectl.run('delete', 'runtimeclass', 'podvm');
  await isAsBefore(second);
}

/** Ends the daemon, and has podvm removed by a change of the DaemonSet. */
export async function leavesNode({ kubectl, second }: Tour, change: () => Promise<unknown>): Promise<void> {
  const { node, podvm, containerd } = second;
  await podvm.end('SIGTERM');
  await change();
  await until('podvm is removed', () => node.run('test', ['!', '-e', '/opt/podvm']));
  await kubectl.rolledOut('ds/podvm', 'podvm');
  await restart(containerd, 'SIGTERM');
  await serves(node, containerdSocket);
}

/** Fails if files are there, or gone, since `labelNode`. */
export async function isAsBefore({ node }: Worker): Promise<void> {
  const { stdout } = await node.run('sh', ['-c', `${listFiles} | diff ${filesBefore} -`], { okCodes: 'any' });
  assert.equal(stdout, '');
  assert.deepEqual((await node.run('ls', ['-A', '/var/lib/podvm'])).stdout, '');
}
