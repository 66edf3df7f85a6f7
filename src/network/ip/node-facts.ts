import { run } from '#host/run.ts';
import { printable } from '#base/guest-text.ts';
import { parseLinks, parseRoutes, type Link, type Route } from './ip-command.ts';

/** What the node's packet filter says of packets that pass through, of one family. */
export interface NatRules {
  /** Whether it lets pass what no rule names. */
  readonly accepts: boolean;
  /** What `-t nat -S POSTROUTING` prints. */
  readonly postrouting: string;
}

/** What our own network has to know of the node. */
export interface NodeFacts {
  /** Undefined: NAT cannot be had. */
  readonly rules: NatRules | undefined;
  readonly rules6: NatRules | undefined;
  readonly links: readonly Link[];
  readonly routes: readonly Route[];
  /** What the node's tools said of what they could not do. */
  readonly complaint: string;
}

const questions = [
  'iptables -w 5 -S FORWARD',
  'iptables -w 5 -t nat -S POSTROUTING',
  'ip6tables -w 5 -S FORWARD',
  'ip6tables -w 5 -t nat -S POSTROUTING',
  'ip -json link show',
  'ip -json route show table all',
];

/** Asked by one shell: starting six processes takes ours 15 ms, at a time when a machine is to be started. */
export async function readNodeFacts(signal: AbortSignal): Promise<NodeFacts> {
  const script = questions.map((question) => `${question}; echo "= $?"`).join('\n');
  const { stdout, stderr } = await run('sh', ['-c', script], { signal, timeoutMs: 60_000 });
  const answers = [...stdout.matchAll(/(.*?)^= (\d+)\n/gms)].map(([, text = '', code]) =>
    code === '0' ? text : undefined,
  );
  const [forward, postrouting, forward6, postrouting6, links, routes] = answers;
  return {
    rules: rulesOf(forward, postrouting),
    rules6: rulesOf(forward6, postrouting6),
    links: parseLinks(links ?? ''),
    routes: parseRoutes(routes ?? ''),
    complaint: printable(stderr.trim(), 200),
  };
}

function rulesOf(forward: string | undefined, postrouting: string | undefined): NatRules | undefined {
  if (forward === undefined || postrouting === undefined) return undefined;
  return { accepts: isAccepting(forward), postrouting };
}

/** Of `iptables -S FORWARD`. */
export const isAccepting = (listing: string): boolean =>
  (/^-P FORWARD (\S+)/m.exec(listing)?.[1] ?? 'ACCEPT') === 'ACCEPT';
