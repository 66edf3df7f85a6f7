import { logFormats, logLevels } from '#host/log/log.ts';
import { networkPolicies } from '#network/guard/network-policy.ts';
import { templateChoices } from '#sandbox/spec/template-choice.ts';

/**
 * Type of a value. A *word* is one of a list; a *number* is a whole number within inclusive bounds, or the word in
 * `or`.
 */
export type SettingType =
  | { readonly kind: 'path' | 'paths' | 'group' | 'address' | 'url' | 'cniConfig' | 'rate' | 'endpoint' | 'namespaces' }
  | { readonly kind: 'word'; readonly words: readonly string[] }
  | { readonly kind: 'number'; readonly min: number; readonly max: number; readonly or?: string };

/** One setting: a key of the file passed with `podvm daemon --config`, or an environment variable. */
export interface Setting {
  readonly env: string;
  readonly type: SettingType;
  /** Default value; absent: computed, as `otherwise` describes. */
  readonly default?: string;
  /** Default of `podvm daemon`, if different. */
  readonly daemonDefault?: string;
  /** Description of a default that is not one value. */
  readonly otherwise?: string;
  readonly about: string;
}

const path = { kind: 'path' } as const;
const word = <const T extends readonly string[]>(...words: T) => ({ kind: 'word', words }) as const;
const number = (min: number, max: number) => ({ kind: 'number', min, max }) as const;

/**
 * All settings, by their keys in the file. An option of the command line takes precedence over the environment, and
 * the environment over the file. `docs/reference/settings.md` is printed from this table.
 */
export const settings = {
  root: {
    env: 'PODVM_ROOT',
    type: path,
    default: '/var/lib/podvm',
    about:
      'State directory: images, sandboxes, and what set-up made. Default of an ordinary user: `podvm` in `$XDG_DATA_HOME` ' +
      '(`~/.local/share`).',
  },
  socketGroup: {
    env: 'PODVM_SOCKET_GROUP',
    type: { kind: 'group' },
    otherwise: 'none: only root may use the node',
    about:
      "Group of the host whose members may use root's node by its socket, with every command but those that need root itself. " +
      'Membership is as good as root on this host ([security](../security.md#the-socket-group)).',
  },
  criSocket: {
    env: 'PODVM_CRI_SOCKET',
    type: path,
    otherwise: '/run/podvm/cri.sock; `cri.sock` in `root` if `root` is set',
    about: "Unix socket of CRI, for the kubelet's `--container-runtime-endpoint`.",
  },
  shimSocket: {
    env: 'PODVM_SHIM_SOCKET',
    type: path,
    otherwise: '/run/podvm/shim.sock; `shim.sock` in `root` if `root` is set',
    about: 'Unix socket on which `podvm daemon` is a runtime of containerd, as `podvm install containerd` tells it.',
  },
  delegate: {
    env: 'PODVM_DELEGATE',
    type: { kind: 'endpoint' },
    otherwise: 'none: such pods are refused',
    about:
      "CRI socket of another runtime, such as `unix:///run/containerd/containerd.sock`, that runs a kubelet's pods which " +
      'cannot be machines.',
  },
  delegateNamespaces: {
    env: 'PODVM_DELEGATE_NAMESPACES',
    type: { kind: 'namespaces' },
    default: 'kube-system',
    about: 'Namespaces of pods that `delegate` may run.',
  },
  streaming: {
    env: 'PODVM_STREAMING',
    type: { kind: 'address' },
    default: '127.0.0.1:0',
    about: 'Address and port on which CRI serves exec, attach and port-forward. Port 0 takes any free port.',
  },
  streamingIdleMinutes: {
    env: 'PODVM_STREAMING_IDLE_MINUTES',
    type: number(1, 35_000), // limit of a timer
    default: '240',
    about: 'Minutes before an idle stream is closed. Pings do not count as traffic.',
  },
  containers: {
    env: 'PODVM_CONTAINERS',
    type: path,
    default: '/etc/containers',
    about: 'Directory with `registries.conf` (mirrors), `certs.d` (certificates) and `policy.json` (signatures).',
  },
  authFile: {
    env: 'PODVM_AUTH_FILE',
    type: path,
    otherwise: 'none: a pull has only its own credentials (`imagePullSecrets`, `podvm login`)',
    about: "Registry credentials in the format of Docker's `config.json`. Every pod's pulls may use them.",
  },
  cniConfig: {
    env: 'PODVM_CNI_CONFIG',
    type: { kind: 'cniConfig' },
    otherwise: '`built-in`; with `podvm daemon`, /etc/cni/net.d as soon as it holds a configuration',
    about:
      'Directory of CNI configurations that only podvm uses, or `built-in` for the bridge that podvm creates itself.',
  },
  cniPlugins: {
    env: 'PODVM_CNI_PLUGINS',
    type: { kind: 'paths' },
    otherwise: '/usr/lib/cni:/opt/cni/bin',
    about: 'Directories that are searched for CNI plugins.',
  },
  networkPolicy: {
    env: 'PODVM_NETWORK_POLICY',
    type: word(...networkPolicies),
    default: 'asked',
    about:
      "What pods on the built-in network reach of the node. `asked`: its services, and metadata services if the pod's " +
      'annotation asks for them. `node`: its services. `outside`: neither.',
  },
  metricsAddress: {
    env: 'PODVM_METRICS_ADDRESS',
    type: { kind: 'address' },
    otherwise: 'none: only the admin socket serves them',
    about:
      'Address and port on which `podvm daemon` serves `/metrics`, `/healthz`, `/readyz` and `/v1/version` over HTTP. It asks ' +
      'for no credentials: what it says includes the names of all pods and images.',
  },
  metricsClients: {
    env: 'PODVM_METRICS_CLIENTS',
    type: word('local', 'any'),
    default: 'local',
    about: 'Whether `metricsAddress` must be an address of loopback (`local`).',
  },
  dashboardAddress: {
    env: 'PODVM_DASHBOARD_ADDRESS',
    type: { kind: 'address' },
    otherwise: 'none: `podvm dashboard` serves one while it runs',
    about:
      'Address 127.0.0.1 and port on which `podvm daemon` serves the dashboard. The address to open, with its token, is in the ' +
      'file `dashboard.url` beside the admin socket, which only root can read; the token changes with each start.',
  },
  traces: {
    env: 'PODVM_TRACES',
    type: { kind: 'url' },
    otherwise: 'none: nothing is traced',
    about:
      'Collector of OpenTelemetry, such as `http://127.0.0.1:4318`, that gets the starts of pods and containers as traces, over ' +
      'OTLP with HTTP and JSON.',
  },
  log: {
    env: 'PODVM_LOG',
    type: word(...logLevels),
    default: 'warn',
    daemonDefault: 'info',
    about: 'Least severe messages that are written to standard error.',
  },
  logFormat: {
    env: 'PODVM_LOG_FORMAT',
    type: word(...logFormats),
    default: 'text',
    about: 'Form of the messages. `json`: an object on each line, with `time`, `level`, `event` and further fields.',
  },
  console: {
    env: 'PODVM_CONSOLE',
    type: word('on', 'memory', 'off'),
    default: 'on',
    daemonDefault: 'memory',
    about:
      "What is kept of guests' serial consoles. `on`: up to 1 MiB of each in a file, for `podvm console`. `memory`: the last " +
      '16 KiB, for `podvm describe` and the last lines of a failed guest.',
  },
  hostLimits: {
    env: 'PODVM_HOST_LIMITS',
    type: word('required', 'preferred'),
    default: 'preferred',
    daemonDefault: 'required',
    about:
      'What happens if the host gives podvm no cgroup to bound a machine. `required`: the machine does not start. ' +
      '`preferred`: it starts, and the log says so.',
  },
  swap: {
    env: 'PODVM_SWAP',
    type: word('on', 'off'),
    default: 'off',
    about: "Whether the host may write machines' memory to its swap.",
  },
  diskRate: {
    env: 'PODVM_DISK_RATE',
    type: { kind: 'rate' },
    otherwise: 'no limit',
    about:
      "Bytes a second that each pod may read of each of the node's disks, and as many that it may write, as `50M`.",
  },
  accelerator: {
    env: 'PODVM_ACCELERATOR',
    type: word('kvm', 'tcg', 'auto'),
    default: 'auto',
    about: 'Hardware virtualisation (`kvm`), emulation (`tcg`), or `auto`: the faster one that boots a machine.',
  },
  pool: {
    env: 'PODVM_POOL',
    type: { ...number(0, 64), or: 'auto' },
    default: '0',
    daemonDefault: 'auto',
    about:
      'Machines that are kept ready for the next pods. `auto`: as many as the largest burst of the last ten minutes ' +
      "took, from one to eight, which use at most 5 % of the node's memory.",
  },
  template: {
    env: 'PODVM_TEMPLATE',
    type: word(...templateChoices),
    default: 'on',
    about:
      "The most that pods may share. `on`: the node's template. `namespace`: the template of their namespace. " +
      '`off`: no template.',
  },
  machineMemoryMiB: {
    env: 'PODVM_MACHINE_MEMORY_MIB',
    type: number(256, 1024 * 1024),
    otherwise: "half of the node's memory, at most 16384",
    about: 'Memory in MiB that one pod may have without booting its own machine.',
  },
  memoryReserveMiB: {
    env: 'PODVM_MEMORY_RESERVE_MIB',
    type: number(0, 1024 * 1024),
    otherwise: "2 % of the node's memory, at most 512",
    about:
      'Memory in MiB that the node keeps available: a pod whose start would leave less is refused, after waiting machines ' +
      'were given back. 0: pods are never refused for it.',
  },
  background: {
    env: 'PODVM_BACKGROUND',
    type: word('on', 'off'),
    default: 'on',
    about:
      'Whether the first command that needs a node starts one in the background. `off`: as `--no-daemon`, the command ' +
      'serves itself, and its pods end with it.',
  },
  idleSeconds: {
    env: 'PODVM_IDLE_SECONDS',
    type: number(1, 2_000_000), // limit of a timer
    default: '600',
    about: 'Seconds without a pod or a request after which a node that a command has started in the background ends.',
  },
  endedPods: {
    env: 'PODVM_ENDED_PODS',
    type: number(0, 1000),
    default: '100',
    about: 'Pods of `podvm run` that are kept after their end, with their logs, until `podvm rm`. The oldest go first.',
  },
  endedPodsMiB: {
    env: 'PODVM_ENDED_PODS_MIB',
    type: number(1, 1024 * 1024),
    default: '512',
    about: 'Disk space in MiB of all pods that are kept after their end. The oldest go first.',
  },
  mirror: {
    env: 'PODVM_MIRROR',
    type: { kind: 'url' },
    otherwise: "the mirror that the host's apt uses",
    about: 'Debian mirror that set-up downloads from.',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;

type WithType<K> = { [S in SettingName]: (typeof settings)[S]['type'] extends K ? S : never }[SettingName];
export type WordSetting = WithType<{ readonly kind: 'word' }>;
export type NumberSetting = WithType<{ readonly kind: 'number' }>;
export type WordOf<K extends WordSetting> = (typeof settings)[K]['type']['words'][number];
