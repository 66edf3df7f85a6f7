import { printable } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { defaultNetworkName } from '../default-network.ts';
import type { HostPort } from '../network.ts';
import { isAnyAddress } from '../port-address.ts';

/** A host port that the CNI plugin `portmap` leads to a pod, of any runtime. */
export interface PortRule {
  readonly protocol: string;
  readonly port: number;
  /** Undefined: all addresses. */
  readonly address: string | undefined;
  readonly network: string;
  /** CNI's container id; for PodVM's pods, the sandbox id. */
  readonly containerId: string;
}

/**
 * The node's rules that lead host ports to pods. They take a packet before any socket sees it, hold no socket, and stay
 * when the runtime that made them was killed.
 */
export async function readPortRules(signal: AbortSignal): Promise<readonly PortRule[]> {
  const listings = ['iptables', 'ip6tables'].map(async (program) => {
    const { stdout } = await run(program, ['-w', '5', '-t', 'nat', '-S'], {
      signal,
      timeoutMs: 10_000,
      okCodes: [0, 1, 2, 3, 4], // without NAT there are no rules
    });
    return parsePortRules(stdout);
  });
  return (await Promise.all(listings)).flat();
}

const entry =
  /^-A CNI-HOSTPORT-DNAT .*--comment "dnat name: \\?"([^"\\]*)\\?" id: \\?"([^"\\]*)\\?"+.* -j (CNI-DN-\S+)$/gm;
const translation = /^-A (CNI-DN-\S+) (?:-d (\S+?)(?:\/32|\/128)? )?-p (\w+) .*--dport (\d+) -j DNAT /gm;

/** Parses `-t nat -S` (containernetworking/plugins, plugins/meta/portmap/portmap.go). */
export function parsePortRules(listing: string): readonly PortRule[] {
  const owners = new Map(
    [...listing.matchAll(entry)].map(([, network = '', id = '', chain = '']) => [chain, { network, id }]),
  );
  return [...listing.matchAll(translation)].flatMap(([, chain = '', address, protocol = '', port]) => {
    const owner = owners.get(chain);
    if (owner === undefined) return []; // no entry leads there
    return [
      { protocol: protocol.toUpperCase(), port: Number(port), address, network: owner.network, containerId: owner.id },
    ];
  });
}

/** The first rule of another sandbox that would take packets for one of the ports. */
export function clashingRule(
  ports: readonly HostPort[],
  rules: readonly PortRule[],
  sandboxId: string,
): { readonly port: HostPort; readonly rule: PortRule } | undefined {
  for (const port of ports) {
    const rule = rules.find(
      ({ containerId, protocol, port: number, address }) =>
        containerId !== sandboxId &&
        protocol === port.protocol &&
        number === port.hostPort &&
        (isAnyAddress(address) || isAnyAddress(port.hostIP) || address === port.hostIP),
    );
    if (rule !== undefined) return { port, rule };
  }
  return undefined;
}

/** Describes the holder of the port. The rule and its machine stay when the podvm that made it was killed. */
export function ruleText({ network, containerId }: PortRule): string {
  const whose = `${printable(containerId, 80)} on CNI network ${printable(network, 80)}`;
  const hint = network === defaultNetworkName ? '; if its podvm was killed, `podvm stop --orphaned` ends it' : '';
  return `a rule of iptables forwards it to ${whose}${hint}`;
}
