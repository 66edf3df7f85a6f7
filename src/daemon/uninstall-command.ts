import { readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isThere } from '#host/file/files.ts';
import { isInside } from '#host/inside-namespaces.ts';
import { bridgeOf, removeDefaultNetwork } from '#network/default-network.ts';
import { keeperSocketsOf } from '#shim/keeper/keeper-sockets.ts';
import { containerdPlaces, uninstallContainerd } from './containerd/install-containerd.ts';
import { k3sPlaces, uninstallK3s } from './containerd/install-k3s.ts';
import { endBackgroundNode } from './background/background-node.ts';
import type { Configuration } from './configuration/configuration.ts';
import { endOrphans } from './background/end-orphans.ts';
import { requireRoot } from './background/serve-here.ts';

/** Entries that podvm makes in its state directory; others are not removed. */
const ours = [
  ...[
    'apt',
    'assets',
    'dashboard.url',
    'ended',
    'images',
    'namespaces.json',
    'namespaces.lock',
    'namespaces.users',
    'network',
    'node.log',
    'node.ready',
    'parts',
    'pasta.pid',
    'probe',
    'run',
    'sandboxes',
    'seccomp',
    'services.json',
    'cron-jobs.json',
    'jobs',
    'setup.lock',
    'snapshots',
    'start.lock',
    'templates',
  ],
  ...['templates-of', 'podvm.sock', 'cri', 'cri.sock', 'shim', 'shim.sock'],
];

/**
 * Runs `podvm uninstall`: ends the pods, removes what podvm added to the node (bridge, NAT, guard), and on request the
 * state directory. Returns its output. Errors: `busy` while a podvm runs, `denied`.
 */
export async function uninstallCommand(
  config: Configuration,
  wishes: { readonly state: boolean },
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<string> {
  requireRoot('uninstall');
  const { root } = config;
  await endBackgroundNode(config, 'withPods', signal);
  const ended = await endOrphans(config, write);
  await rm(keeperSocketsOf(config.shimSocketPath).wanted, { force: true });
  const network = join(root, 'network');
  const bridge = await bridgeOf(network);
  if (bridge !== undefined) {
    await removeDefaultNetwork(network, signal);
    await rm(network, { recursive: true }); // names the bridge that was just removed
  }
  const installed = isInside
    ? []
    : [...(await uninstallContainerd(containerdPlaces)), ...(await uninstallK3s(k3sPlaces))];
  const said = [
    ...ended.map(({ namespace, name }) => `pod ${namespace}/${name} ended\n`),
    ...(bridge === undefined ? [] : [`network ${bridge} removed\n`]),
    ...installed.map((path) => `${path} removed\n`),
    ...(wishes.state ? await removeState(root) : []),
  ];
  return said.length === 0 ? 'there is nothing to remove\n' : said.join('');
}

async function removeState(root: string): Promise<readonly string[]> {
  if (!(await isThere(root))) return [];
  for (const name of ours) await rm(join(root, name), { recursive: true, force: true });
  const left = await readdir(root);
  const state = isInside ? 'state' : `state in ${root}`; // the user knows it by another path
  if (left.length > 0) return [`${state} removed, except ${left.join(', ')}\n`];
  const isRemoved = await rmdir(root).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EBUSY') throw error;
      return false;
    },
  );
  return [`${state} removed${isRemoved || isInside ? '' : ', except the mount point'}\n`];
}
