import { run } from '#host/process/run.ts';
import { printable } from '#base/guest-text.ts';
import { parseLinks, parseRoutes, type Link, type Route } from './ip-command.ts';

/** The node's packet filter for forwarded packets, for one family. */
export interface NatRules {
  /** Whether packets that match no rule are accepted. */
  readonly accepts: boolean;
  /** The output of `-t nat -S POSTROUTING`. */
  readonly postrouting: string;
}

/** Facts about the node that the built-in network depends on. */
export interface NodeFacts {
  /** Undefined when NAT is not available. */
  readonly rules: NatRules | undefined;
  readonly rules6: NatRules | undefined;
  readonly links: readonly Link[];
  readonly routes: readonly Route[];
  /** Errors that the node's tools printed. */
  readonly complaint: string;
}

const questions = [
  'iptables -w 5 -S FORWARD',
  'iptables -w 5 -t nat -S POSTROUTING',
  'ip6tables -w 5 -S FORWARD',
  'ip6tables -w 5 -t nat -S POSTROUTING',
  'ip -json -details link show',
  'ip -json route show table all',
];

/** Reads the facts with one shell: starting six processes from here would take 15 ms of this thread during a start. */
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

/** Parses the output of `iptables -S FORWARD`. */
export const isAccepting = (listing: string): boolean =>
  (/^-P FORWARD (\S+)/m.exec(listing)?.[1] ?? 'ACCEPT') === 'ACCEPT';
