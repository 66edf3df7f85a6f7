import type { AttachmentRecord } from './attachment-record.ts';
import type { CniResult, Conflist } from './cni/cni-schema.ts';
import { interfaceName } from './lost-links.ts';
import type { PortRules } from './guard/frame-filter.ts';

/** Rules for the frames of a pod, derived from the answer of the built-in chain. */
export function portRulesOf(
  { plugins }: Conflist,
  { ips, interfaces }: CniResult,
  record: AttachmentRecord,
): PortRules {
  const macOf = (wanted: unknown) => interfaces?.find(({ name }) => name === wanted)?.mac;
  return {
    mac: macOf(interfaceName) ?? record.mac,
    addresses: (ips ?? []).map(({ address }) => address),
    gateways: (ips ?? []).flatMap(({ gateway }) => gateway ?? []),
    gatewayMac: macOf(plugins[0]?.['bridge']),
    reachesMetadata: record.reachesMetadata === true,
  };
}
