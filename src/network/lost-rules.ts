import { run } from '#host/process/run.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { bareAddress } from './ip/bare-address.ts';
import { readPortRules } from './ports/port-rules.ts';

/** Plugins whose rules of the node are gone, each with the ids of the sandboxes that need them. */
export async function findLostRules(
  records: readonly AttachmentRecord[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const using = (type: string) =>
    records.filter(({ conflist }) => conflist?.plugins.some((plugin) => plugin.type === type) === true);
  const ported = using('portmap').filter(({ capabilities }) => capabilities?.['portMappings'] !== undefined);
  const accepted = using('firewall');
  const sandboxes = ported.length === 0 ? [] : (await readPortRules(signal)).map(({ containerId }) => containerId);
  const lines = accepted.length === 0 ? '' : await acceptedAddresses(signal);
  const isAccepted = ({ added }: AttachmentRecord) =>
    (added?.ips ?? []).every(
      ({ address }) => address.includes(':') || lines.includes(` -d ${bareAddress(address)}/32 `),
    );
  const idsOf = (lost: readonly AttachmentRecord[]) => new Set(lost.map(({ sandboxId }) => sandboxId));
  return new Map([
    ['portmap', idsOf(ported.filter(({ sandboxId }) => !sandboxes.includes(sandboxId)))],
    ['firewall', idsOf(accepted.filter((record) => !isAccepted(record)))],
  ]);
}

/** Rules of the plugin `firewall` for pods that accept connections. */
async function acceptedAddresses(signal: AbortSignal): Promise<string> {
  const listed = await run('iptables', ['-w', '5', '-S', 'CNI-FORWARD'], { signal, timeoutMs: 10_000, okCodes: 'any' });
  return listed.stdout;
}
