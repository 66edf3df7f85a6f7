import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import { parseQuantity, unitsOf } from '#base/quantity.ts';
import type { Conflist, PluginConfig } from './cni-schema.ts';
import type { AttachmentOwner, HostPort } from '../network.ts';
import { isLoopback } from '../port-address.ts';

/**
 * CNI capabilities, which are passed to plugins as `runtimeConfig`: the same ones that other runtimes pass (CNI's
 * CONVENTIONS.md; containerd's `io.kubernetes.cri.pod-annotations`).
 */
export type Capabilities = Readonly<Record<string, unknown>>;

/** Errors: `invalid` when a bandwidth annotation is not a bandwidth. */
export function capabilitiesOf(owner: AttachmentOwner, mac: string): Capabilities {
  const { hostPorts, annotations = {}, dns } = owner;
  const bandwidth = bandwidthOf(annotations);
  const { nameservers: servers, searches, options } = dns ?? { nameservers: [], searches: [], options: [] };
  const hasDns = servers.length + searches.length + options.length > 0;
  return {
    mac,
    ...(hostPorts.length === 0 ? {} : { portMappings: mappingsOf(hostPorts) }),
    ...(bandwidth === undefined ? {} : { bandwidth }),
    ...(hasDns ? { dns: { servers, searches, options } } : {}),
    ...(Object.keys(annotations).length === 0 ? {} : { 'io.kubernetes.cri.pod-annotations': annotations }),
  };
}

/**
 * Leaves out host ports that are only on loopback: rules for them would need `route_localnet`, which opens the node's
 * own 127.0.0.1 to pods, and IPv6 has no equivalent. `held-ports.ts` forwards those ports.
 */
export function withoutLoopback(capabilities: Capabilities, hostPorts: readonly HostPort[]): Capabilities {
  const { portMappings: _, ...rest } = capabilities;
  const routed = hostPorts.filter(({ hostIP }) => !isLoopback(hostIP));
  return routed.length === 0 ? rest : { ...rest, portMappings: mappingsOf(routed) };
}

const mappingsOf = (hostPorts: readonly HostPort[]) =>
  hostPorts.map((port) => ({ ...port, protocol: port.protocol.toLowerCase() }));

/** The capabilities that the chain's plugins declare; the others need not be recorded. */
export function declaredOf(capabilities: Capabilities, { plugins }: Conflist): Capabilities {
  return Object.fromEntries(
    Object.entries(capabilities).filter(([name]) => plugins.some((plugin) => plugin.capabilities?.[name] === true)),
  );
}

/** Capabilities that only some pods use, each with a plugin that does nothing else. */
const onlyAsked = ['portMappings', 'bandwidth'];

/** Whether a plugin of the built-in chain has something to do. Configured chains always run whole. */
export function hasWork({ capabilities = {} }: PluginConfig, asked: Capabilities): boolean {
  const own = onlyAsked.filter((name) => capabilities[name] === true);
  return own.length === 0 || own.some((name) => asked[name] !== undefined);
}

/** Kubernetes' bounds, in bits per second (pkg/util/bandwidth). */
const [minRate, maxRate] = [1000, 1e15];
/** Time whose traffic at the full rate is the burst; for the slowest rates, the burst is a few packets. */
const burstSeconds = 0.25;
const minBurstBits = 8 * 64 * 1024;
const maxBurstBits = 2 ** 32 - 1;

function bandwidthOf(annotations: Readonly<Record<string, string>>): Record<string, number> | undefined {
  const ingress = rateOf(annotations, podAnnotations.ingressBandwidth.name);
  const egress = rateOf(annotations, podAnnotations.egressBandwidth.name);
  if (ingress === undefined && egress === undefined) return undefined;
  return {
    ...(ingress === undefined ? {} : { ingressRate: ingress, ingressBurst: burstOf(ingress) }),
    ...(egress === undefined ? {} : { egressRate: egress, egressBurst: burstOf(egress) }),
  };
}

function rateOf(annotations: Readonly<Record<string, string>>, name: string): number | undefined {
  const text = annotations[name];
  if (text === undefined) return undefined;
  const quantity = parseQuantity(text);
  const rate = quantity === undefined ? Number.NaN : unitsOf(quantity);
  if (rate >= minRate && rate <= maxRate) return rate;
  throw new PodvmError(
    'invalid',
    `Cannot limit a pod's bandwidth: annotation ${name} must be from 1k to 1P bits a second, got "${printable(text, 60)}"`,
    { fix: 'Write a quantity such as 10M.' },
  );
}

/**
 * The burst that keeps a link of this rate full. Other runtimes give the largest burst that the plugin accepts; the kernel
 * makes 193 MB of it at 10 Mbit/s, and a pod is not limited until it has moved as much.
 */
const burstOf = (rate: number) => Math.round(Math.min(maxBurstBits, Math.max(minBurstBits, rate * burstSeconds)));
