import { run } from '#host/process/run.ts';

/** A rule that gives packets of the subnet the node's address. */
export interface Masquerade {
  readonly subnet: string;
  readonly bridge: string;
  /**
   * `out`: packets that leave the node by an interface other than the bridge. `back`: packets to a host port that were led
   * back to a pod of the bridge, which would answer the sender directly, from an address that the sender does not know.
   */
  readonly way: 'out' | 'back';
}

export const masqueradesOf = (subnet: string, bridge: string): readonly Masquerade[] => [
  { subnet, bridge, way: 'out' },
  { subnet, bridge, way: 'back' },
];

/**
 * Makes the owner's rules exactly these: adds missing ones and removes others. The rules serve all pods of a subnet; the
 * bridge plugin's own (`ipMasq`) are four per pod and address, and took more than half of its time.
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

/** The output of `-t nat -S POSTROUTING` of each program; empty where there is no NAT. */
export type NatListings = Readonly<Record<Program, string>>;

/** Rules as `-S` prints them (iptables-save(8)). */
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
    okCodes: command === '-D' ? [0, 1] : [0], // 1: another process removed it first
  });
}

const timeoutMs = 10_000;
