import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { isThere } from '#host/file/files.ts';
import { bridgeOf } from './default-network.ts';
import type { BuiltInBridge, Network } from './network.ts';
import { dnsAddress, hasRules, removeRules, rulesFile, rulesOf, setRules } from './services/service-rules.ts';
import { ServiceDns, servicesDirectory } from './services/service-dns.ts';
import type { Served } from '#base/served-services.ts';

/** What serves Services to the pods of the built-in network. */
export interface ServiceNetwork {
  /**
   * Lets pods reach these names and addresses, and restores what others have removed. Returns the address of the name
   * server for pods; undefined where pods use a configured network, which knows nothing of Services. Errors:
   * `failedPrecondition`, and those of the built-in network.
   */
  serve(served: Served, signal: AbortSignal): Promise<string | undefined>;
  /** Ends the name server, and removes the rules. */
  stop(signal: AbortSignal): Promise<void>;
}

/** `stateDir`: that of the network. */
export function openServiceNetwork(stateDir: string, network: Pick<Network, 'builtIn'>): ServiceNetwork {
  const directory = servicesDirectory(stateDir);
  const dns = new ServiceDns(directory);
  let last: { readonly bridge: BuiltInBridge; readonly digest: string } | undefined;
  return {
    async serve({ services, names }, signal) {
      const bridge = await network.builtIn(signal);
      if (bridge === undefined) return undefined;
      const rules = rulesOf(bridge, services);
      const digest = createHash('sha256').update(rules).digest('hex');
      const isSet =
        last?.digest === digest && last.bridge.bridge === bridge.bridge && (await hasRules(bridge.bridge, signal));
      if (!isSet) await setRules({ bridge: bridge.bridge, directory }, rules, signal);
      last = { bridge, digest };
      await dns.serve(bridge, names);
      return dnsAddress;
    },
    async stop(signal) {
      last = undefined;
      await dns.stop();
      if (!(await isThere(rulesFile(directory)))) return; // also an earlier process has set none
      const bridge = await bridgeOf(stateDir);
      if (bridge !== undefined) await removeRules(bridge, signal);
      await rm(rulesFile(directory), { force: true });
    },
  };
}
