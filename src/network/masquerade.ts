import { run } from '#host/run.ts';

/** What leaves the node from that subnet by another interface than that bridge goes out with the node's address. */
export interface Masquerade {
  readonly subnet: string;
  readonly bridge: string;
}

/**
 * Has the node keep just these rules of the owner: what is missing is made, what is there beside them taken away. One
 * rule serves all pods of a subnet; the bridge plugin's own (`ipMasq`) are four for each pod and address, and took more
 * than half of its time.
 */
export async function masquerade(owner: string, rules: readonly Masquerade[], signal: AbortSignal): Promise<void> {
  await Promise.all(
    programs.map(async ({ program, isIts }) => {
      const wanted = rules.filter(({ subnet }) => isIts(subnet));
      const there = await rulesOf(program, owner, signal);
      for (const rule of wanted.filter((rule) => !has(there, rule))) await change(program, '-A', owner, rule, signal);
      for (const rule of there.filter((rule) => !has(wanted, rule))) await change(program, '-D', owner, rule, signal);
    }),
  );
}

const has = (rules: readonly Masquerade[], { subnet, bridge }: Masquerade) =>
  rules.some((rule) => rule.subnet === subnet && rule.bridge === bridge);

const programs = [
  { program: 'iptables', isIts: (subnet: string) => !subnet.includes(':') },
  { program: 'ip6tables', isIts: (subnet: string) => subnet.includes(':') },
];

/** iptables-save(8), as `-S` prints it. */
const printed = /^-A POSTROUTING -s (\S+) ! -o (\S+) -m comment --comment "?(.+?)"? -j MASQUERADE$/gm;

async function rulesOf(program: string, owner: string, signal: AbortSignal): Promise<Masquerade[]> {
  const listed = await run(program, ['-w', '5', '-t', 'nat', '-S', 'POSTROUTING'], {
    signal,
    timeoutMs,
    okCodes: [0, 1, 3], // no NAT, and so no rule: whoever needs it has found out before
  });
  return [...listed.stdout.matchAll(printed)]
    .filter(([, , , comment = '']) => comment.replaceAll(/\\(.)/g, '$1') === owner)
    .map(([, subnet = '', bridge = '']) => ({ subnet, bridge }));
}

async function change(
  program: string,
  command: '-A' | '-D',
  owner: string,
  { subnet, bridge }: Masquerade,
  signal: AbortSignal,
): Promise<void> {
  const rule = ['-s', subnet, '!', '-o', bridge, '-m', 'comment', '--comment', owner, '-j', 'MASQUERADE'];
  await run(program, ['-w', '5', '-t', 'nat', command, 'POSTROUTING', ...rule], {
    signal,
    timeoutMs,
    okCodes: command === '-D' ? [0, 1] : [0], // another process was faster
  });
}

const timeoutMs = 10_000;
