import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { chartDirectory } from '../../tools/chart/chart.ts';
import type { Steps } from '../containerd/walk-steps.ts';
import { push } from './cluster-images.ts';
import {
  beginInstalled,
  classSteps,
  hasClass,
  isAsBefore,
  keepsPods,
  labelNode,
  leavesNode,
  mark,
} from './deploy-steps.ts';
import { until } from './kubectl.ts';
import { makeNodeImage } from './node-image.ts';
import { images } from './places.ts';
import { startWebPods } from './serving-pods.ts';
import type { HelmTour } from './tour.ts';

/** Installation of podvm on the containerd node by Helm, with the chart of this checkout. */
export const helmInstallSteps: Steps<HelmTour> = [
  ['helm install installs podvm on the labelled node', installs],
  ...classSteps,
];

/** Other settings, and back, and another version, while pods run in machines. */
export const helmUpgradeSteps: Steps<HelmTour> = [
  ['helm upgrade changes settings without the end of a pod', upgrades],
  ['helm rollback has the settings of the installation again', rollsBack],
  ['helm upgrade installs another version without the end of a pod', installsNext],
  ['pods of the other version are in machines', hasClass],
];

export const repository = images.node.slice(0, images.node.lastIndexOf(':'));
const inNamespace = ['--namespace', 'podvm'];

/** Types `helm` on the first node, where it keeps nothing. */
export async function helm({ first: { node }, helm: program }: HelmTour, ...args: readonly string[]): Promise<string> {
  const homes = ['CACHE', 'CONFIG', 'DATA'].map((name) => `HELM_${name}_HOME=/run/helm`);
  const { stdout } = await node.run('env', [...homes, program, ...args, ...inNamespace], {
    timeoutMs: 300_000,
  });
  return stdout;
}

const releases = v.array(v.object({ name: v.string(), revision: v.string(), status: v.string() }));

async function isDeployed(tour: HelmTour, revision: number): Promise<void> {
  const listed = v.parse(releases, JSON.parse(await helm(tour, 'list', '-o', 'json')));
  assert.deepEqual(listed, [{ name: 'podvm', revision: String(revision), status: 'deployed' }]);
}

async function installs(tour: HelmTour): Promise<void> {
  await labelNode(tour, tour.second);
  const flags = ['--create-namespace', '--set', `image.repository=${repository}`];
  await helm(tour, 'install', 'podvm', chartDirectory, ...flags);
  await beginInstalled(tour);
  await isDeployed(tour, 1);
}

async function upgrades(tour: HelmTour): Promise<void> {
  await startWebPods(tour.kubectl);
  const flags = ['--reuse-values', '--set', 'settings.logFormat=json'];
  const change = () => helm(tour, 'upgrade', 'podvm', chartDirectory, ...flags);
  await keepsPods(tour, change, ({ node }) => node.run('grep', ['logFormat', mark]));
  assert.match(await readFile(tour.second.podvm.logFile, 'utf8'), /^\{.*"serving/m);
  await isDeployed(tour, 2);
}

async function rollsBack(tour: HelmTour): Promise<void> {
  const change = () => helm(tour, 'rollback', 'podvm', '1');
  await keepsPods(tour, change, ({ node }) => node.run('sh', ['-c', `test -e ${mark} && ! grep logFormat ${mark}`]));
  await tour.second.node.run('test', ['!', '-e', '/etc/podvm/podvm.yaml']);
  await isDeployed(tour, 3);
}

/** Of the same sources: what is tried is the way from one version to another. */
const nextVersion = '0.2.0-next';

async function installsNext(tour: HelmTour): Promise<void> {
  const { work, nodes, second } = tour;
  await push(nodes[0], await makeNodeImage(join(work, 'next'), nextVersion), `${repository}:${nextVersion}`);
  const program = '/opt/podvm/podvm';
  const version = async () => (await second.node.run(program, ['--version'])).stdout.trim();
  const before = await version();
  const flags = ['--reuse-values', '--set', `image.tag=${nextVersion}`];
  const change = () => helm(tour, 'upgrade', 'podvm', chartDirectory, ...flags);
  await keepsPods(tour, change, ({ node }) => node.run('grep', [`^podvm ${nextVersion}$`, mark]));
  assert.deepEqual([before === nextVersion, await version()], [false, nextVersion]);
  await isDeployed(tour, 4);
}

/** Removes podvm from the containerd node as the chart says, and the release. */
export async function uninstallRelease(tour: HelmTour): Promise<void> {
  const flags = ['--reuse-values', '--set', 'action=uninstall', '--set', 'removeState=true'];
  await leavesNode(tour, () => helm(tour, 'upgrade', 'podvm', chartDirectory, ...flags));
  await helm(tour, 'uninstall', 'podvm', '--wait');
  const kinds = 'daemonset,pod,configmap,secret,controllerrevision';
  await until('nothing of the release is left', async () => {
    const left = await tour.kubectl.run('get', kinds, ...inNamespace, '-o', 'name');
    assert.equal(left, 'configmap/kube-root-ca.crt\n');
  });
  const { stdout } = await tour.kubectl.try(['get', 'runtimeclass', 'podvm', '--ignore-not-found', '-o', 'name']);
  assert.equal(stdout, '');
  await tour.kubectl.run('delete', 'namespace', 'podvm');
  await isAsBefore(tour.second);
}
