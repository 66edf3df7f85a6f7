import { join } from 'node:path';
import type { Log } from '#host/log/log.ts';
import { createHostNetwork, type CniConfigDirectory } from '#network/host-network.ts';
import type { Network } from '#network/network.ts';
import type { Configuration } from '../configuration/configuration.ts';

/** Role of the node: a cluster's, a user's command, or one that a command has started in the background. */
export type Purpose = 'daemon' | 'command' | 'background';

/** Default directory of CNI configurations. */
const usualDirectory = '/etc/cni/net.d';

/** Opens the node's network as configured. Creates nothing yet. */
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

/**
 * Returns the CNI directory. A command without a setting uses the built-in network: files in the default directory may
 * belong to another program.
 */
function directoryOf({ cniConfig }: Configuration, purpose: Purpose): CniConfigDirectory | undefined {
  if (cniConfig?.kind === 'directory') return { directory: cniConfig.path, orElse: 'refuse' };
  if (cniConfig?.kind === 'builtIn' || purpose !== 'daemon') return undefined;
  return { directory: usualDirectory, orElse: 'builtIn' };
}
