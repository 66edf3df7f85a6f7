import { join } from 'node:path';
import type { Log } from '#host/log.ts';
import { createHostNetwork, type CniConfigDirectory } from '#network/host-network.ts';
import type { Network } from '#network/network.ts';
import type { Configuration } from './configuration.ts';

/** Who serves: a node of a cluster, or somebody's command. */
export type Purpose = 'daemon' | 'command';

/** Where a cluster network puts its configuration. */
const usualDirectory = '/etc/cni/net.d';

/** The node's network, as far as it is configured. Makes nothing yet. */
export function openNetwork(config: Configuration, purpose: Purpose, log: Log): Network {
  const cniConfig = directoryOf(config, purpose);
  const { cniPluginDirectories } = config;
  return createHostNetwork({
    stateDir: join(config.root, 'network'),
    policy: config.networkPolicy,
    log,
    ...(cniConfig === undefined ? {} : { cniConfig }),
    ...(cniPluginDirectories === undefined ? {} : { cniPluginDirs: cniPluginDirectories }),
  });
}

/** A command without a cluster keeps to the built-in network: what lies in the usual directory may be another program's. */
function directoryOf({ cniConfig }: Configuration, purpose: Purpose): CniConfigDirectory | undefined {
  if (cniConfig?.kind === 'directory') return { directory: cniConfig.path, orElse: 'refuse' };
  if (cniConfig?.kind === 'builtIn' || purpose === 'command') return undefined;
  return { directory: usualDirectory, orElse: 'builtIn' };
}
