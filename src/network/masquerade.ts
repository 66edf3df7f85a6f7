import { run } from '#host/run.ts';

/** Packets of that subnet go out with the node's address. */
export interface Masquerade {
  readonly subnet: string;
  readonly bridge: string;
  /**
   * `out`: what leaves the node by another interface than the bridge. `back`: what came for a host port and was led back
   * to a pod of the bridge, which would answer the one that asked directly, and from an address that this does not know.
   */
  readonly way: 'out' | 'back';
}

export const masqueradesOf = (subnet: string, bridge: string): readonly Masquerade[] => [
  { subnet, bridge, way: 'out' },
  { subnet, bridge, way: 'back' },
];

/**
 * Has the node keep just these rules of the owner: what is missing is made, what is there beside them taken away. They
 * serve all pods of a subnet; the bridge plugin's own (`ipMasq`) are four for each pod and address, and took more
 * than half of its time.
 */
export async function masquerade(
  owner: string,
  rules: readonly Masquerade[],
  listings: NatListings,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    programs.map(async ({ program, isIts }) => {
      const wanted = rules.filter(({ subnet }) => isIts(subnet));
      const there = rulesIn(listings[program], owner);
      for (const rule of wanted.filter((rule) => !has(there, rule))) await change(program, '-A', owner, rule, signal);
      for (const rule of there.filter((rule) => !has(wanted, rule))) await change(program, '-D', owner, rule, signal);
    }),
  );
}

const has = (rules: readonly Masquerade[], { subnet, bridge, way }: Masquerade) =>
  rules.some((rule) => rule.subnet === subnet && rule.bridge === bridge && rule.way === way);

type Program = 'iptables' | 'ip6tables';

const programs = [
  { program: 'iptables', isIts: (subnet: string) => !subnet.includes(':') },
  { program: 'ip6tables', isIts: (subnet: string) => subnet.includes(':') },
] as const;

/** What `-t nat -S POSTROUTING` of each program prints; empty where there is no NAT. */
export type NatListings = Readonly<Record<Program, string>>;

/** iptables-save(8), as `-S` prints it. */
const printed =
  /^-A POSTROUTING -s (\S+) (! -o (\S+)|-o (\S+) -m conntrack --ctstate DNAT) -m comment --comment "?(.+?)"? -j MASQUERADE$/gm;

function rulesIn(listing: string, owner: string): Masquerade[] {
  return [...listing.matchAll(printed)]
    .filter(([, , , , , comment = '']) => comment.replaceAll(/\\(.)/g, '$1') === owner)
    .map(([, subnet = '', , out, back = '']) =>
      out === undefined ? { subnet, bridge: back, way: 'back' } : { subnet, bridge: out, way: 'out' },
    );
}

async function change(
  program: Program,
  command: '-A' | '-D',
  owner: string,
  { subnet, bridge, way }: Masquerade,
  signal: AbortSignal,
): Promise<void> {
  const which = way === 'out' ? ['!', '-o', bridge] : ['-o', bridge, '-m', 'conntrack', '--ctstate', 'DNAT'];
  const rule = ['-s', subnet, ...which, '-m', 'comment', '--comment', owner, '-j', 'MASQUERADE'];
  await run(program, ['-w', '5', '-t', 'nat', command, 'POSTROUTING', ...rule], {
    signal,
    timeoutMs,
    okCodes: command === '-D' ? [0, 1] : [0], // another process was faster
  });
}

const timeoutMs = 10_000;
