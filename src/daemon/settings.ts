/** One thing that can be set: in the file that `podvm daemon --config` names, or by an environment variable. */
interface Setting {
  readonly env: string;
  /** In words, for a reader of the reference. */
  readonly default: string;
  readonly about: string;
}

/**
 * All that can be set, by its key in the file. An option of the command line goes before the environment, and that before
 * the file. `docs/configuration.md` is printed from this table.
 */
export const settings = {
  root: {
    env: 'PODVM_ROOT',
    default: '/var/lib/podvm',
    about: 'state directory: images, sandboxes, what set-up made',
  },
  criSocket: {
    env: 'PODVM_CRI_SOCKET',
    default: '/run/podvm/cri.sock, or cri.sock in another state directory',
    about: "CRI's unix socket, for the kubelet's --container-runtime-endpoint",
  },
  streaming: {
    env: 'PODVM_STREAMING',
    default: '127.0.0.1:0',
    about: "ADDRESS:PORT of CRI's exec, attach and port-forward; port 0 takes any",
  },
  streamingIdleMinutes: {
    env: 'PODVM_STREAMING_IDLE_MINUTES',
    default: '240',
    about: 'a stream over which nothing but pings went for so long is ended, from 1',
  },
  containers: {
    env: 'PODVM_CONTAINERS',
    default: '/etc/containers',
    about: 'directory with registries.conf (mirrors), certs.d (CAs) and policy.json (signatures)',
  },
  authFile: {
    env: 'PODVM_AUTH_FILE',
    default: 'none: what a pull brings (imagePullSecrets, --authfile) is all',
    about: "credentials for every pod's pulls, as docker's config.json: all pods may have what it gives",
  },
  cniConfig: {
    env: 'PODVM_CNI_CONFIG',
    default: 'of podvm daemon /etc/cni/net.d as soon as it holds one, else built-in',
    about: "directory of CNI configurations (*.conflist) that is podvm's alone, or built-in: a bridge of our own",
  },
  cniPlugins: {
    env: 'PODVM_CNI_PLUGINS',
    default: '/usr/lib/cni:/opt/cni/bin',
    about: 'directories in which CNI plugins are looked for',
  },
  networkPolicy: {
    env: 'PODVM_NETWORK_POLICY',
    default: 'asked',
    about:
      'what pods on the bridge of our own reach of the node: asked, its services, and metadata if the pod asks; node, its services; outside, neither',
  },
  log: {
    env: 'PODVM_LOG',
    default: 'warn, of podvm daemon info',
    about: 'what goes to standard error: debug, info, warn, error or silent',
  },
  console: {
    env: 'PODVM_CONSOLE',
    default: 'on, of podvm daemon off',
    about: "whether the guests' serial consoles are kept, for podvm console and for the last words of a dead guest",
  },
  hostLimits: {
    env: 'PODVM_HOST_LIMITS',
    default: 'preferred, of podvm daemon required',
    about:
      'required: no machine runs where the host gives us no cgroup to bound it; preferred: it does, and the log says so',
  },
  swap: {
    env: 'PODVM_SWAP',
    default: 'off',
    about: "whether the host may write machines' memory to its swap",
  },
  accelerator: {
    env: 'PODVM_ACCELERATOR',
    default: 'auto',
    about: 'kvm, tcg, or auto: the better one that boots a machine',
  },
  pool: { env: 'PODVM_POOL', default: '0', about: 'machines kept waiting for a pod, 0 to 64' },
  template: {
    env: 'PODVM_TEMPLATE',
    default: 'on',
    about: "what pods may share at most: on, the node's template; namespace, one of their namespace's; off, none",
  },
  machineMemoryMiB: {
    env: 'PODVM_MACHINE_MEMORY_MIB',
    default: "half of the node's memory, at most 16384",
    about: 'what one pod may have without booting cold, from 256',
  },
  mirror: {
    env: 'PODVM_MIRROR',
    default: "the one that the host's apt uses",
    about: 'URL of a Debian mirror for set-up',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;

/** The reference page, as it is in `docs/`. */
export function describeSettings(): string {
  const rows = Object.entries(settings).map(([key, { env, default: otherwise, about }]) => [
    `\`${key}\``,
    `\`${env}\``,
    about,
    otherwise,
  ]);
  const head = ['key', 'environment', 'what', 'default'];
  const widths = head.map((word, at) => Math.max(word.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |\n`;
  const rule = widths.map((width) => '-'.repeat(width));
  return [head, rule, ...rows].map(line).join('');
}
