import { run } from '#host/run.ts';

/** What the node's packet filter says of packets that pass through, of one family. */
export interface NatRules {
  /** Whether it lets pass what no rule names. */
  readonly accepts: boolean;
  /** What `-t nat -S POSTROUTING` prints. */
  readonly postrouting: string;
}

/** Errors: those of `run`, where NAT cannot be had. */
export async function readNatRules(program: 'iptables' | 'ip6tables', signal: AbortSignal): Promise<NatRules> {
  const [forward, postrouting] = await Promise.all(
    [
      ['-S', 'FORWARD'],
      ['-t', 'nat', '-S', 'POSTROUTING'],
    ].map((args) => run(program, ['-w', '5', ...args], { signal, timeoutMs: 10_000 })),
  );
  return { accepts: isAccepting(forward?.stdout ?? ''), postrouting: postrouting?.stdout ?? '' };
}

/** The same; undefined where NAT cannot be had, which is no reason to refuse pods that can do without. */
export async function findNatRules(
  program: 'iptables' | 'ip6tables',
  signal: AbortSignal,
): Promise<NatRules | undefined> {
  try {
    return await readNatRules(program, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    return undefined;
  }
}

/** Of `iptables -S FORWARD`. */
export const isAccepting = (listing: string): boolean =>
  (/^-P FORWARD (\S+)/m.exec(listing)?.[1] ?? 'ACCEPT') === 'ACCEPT';
