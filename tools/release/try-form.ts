import { run } from '#host/process/run.ts';

/** Code that the checks of all forms share: shell scripts that install, use and remove one. */

const timeoutMs = 30 * 60_000;

/** Runs a shell script, which ends at the first command that fails. `inside`: the words of a command that runs it. */
export async function shell(
  lines: readonly string[],
  env: Readonly<Record<string, string>>,
  inside: readonly string[] = [],
): Promise<string> {
  return (await run('env', [...inside, 'sh', '-ec', lines.join('\n')], { env, timeoutMs })).stdout;
}

/**
 * Prints network, sysctls of the network and mounts, which a removal must restore. Leaves out counters, tables of
 * iptables without rules, and traces of the host's tools (docs/install.md).
 */
export const networkTraces = [
  'ip -br link',
  "{ iptables-save; ip6tables-save; } | grep '^-' || true",
  "nft list ruleset | grep -v 'table ip6* nat' | grep 'table' || true",
  "find /proc/sys/net/ipv4 /proc/sys/net/ipv6 -type f ! -name '*forward*' -exec grep -sH . {} + | sort || true",
  "cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/run/netns' | sort || true",
];

/** Defines `traces`, which prints files and network of a fresh root. */
export const rootTraces = String.raw`traces() {
  find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache/debconf \) -prune -o -print | sort
  ${networkTraces.join('\n  ')}
}`;

/** Runs a command, and ends with 1 if it fails or logs a warning. */
const quietly = String.raw`quietly() {
  said=$(mktemp)
  "$@" 2>"$said" || { cat "$said" >&2; exit 1; }
  if grep -E '^[0-9T:.-]+Z (warn|error) ' "$said" >&2; then exit 1; fi
  rm "$said"
}`;

/** Sets up from the bundle, unless the form has done so, and runs the pod of the file; pods have this kernel, and podvm says so. */
export const use = (podvm: string, hello: string, kernelVersion: string, bundle?: string): readonly string[] => [
  quietly,
  ...(bundle === undefined ? [] : [`quietly ${podvm} setup --from ${bundle}`]),
  `${podvm} version | grep -F ${kernelVersion} >&2`,
  `quietly ${podvm} run ${hello}`,
  `quietly ${podvm} run localhost/podvm/base:latest uname -r | grep -Fx ${kernelVersion} >&2`,
];

/** The caller's environment with these variables. */
export const environmentOf = (more: Readonly<Record<string, string>>): Record<string, string> => {
  const own = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  return { ...Object.fromEntries(own), ...more };
};
