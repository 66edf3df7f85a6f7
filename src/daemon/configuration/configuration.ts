import { accessSync, constants, existsSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { BlockList, isIP } from 'node:net';
import { homedir, hostname } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import { parseQuantity, unitsOf } from '#base/quantity.ts';
import { insideRoot, isInside } from '#host/inside-namespaces.ts';
import type { LogFormat, LogLevel } from '#host/log/log.ts';
import type { NetworkPolicy } from '#network/guard/network-policy.ts';
import type { PoolSize } from '#sandbox/start/pool-demand.ts';
import type { TemplateChoice } from '#sandbox/spec/template-choice.ts';
import type { UpdateRequest } from '#setup/update-report.ts';
import type { FileSettings } from './config-file.ts';
import { type NumberSetting, type SettingName, type WordOf, type WordSetting, settings } from './settings.ts';

/** All configuration, read once from outside. Other modules receive values. */
export interface Configuration {
  /** State directory: images, sandboxes, assets. */
  readonly root: string;
  /** Unix socket of the admin API. */
  readonly socketPath: string;
  /** Name of the group whose members may connect to it besides root; undefined: none. */
  readonly socketGroup: string | undefined;
  /** Unix socket of CRI, for `podvm daemon`. */
  readonly criSocketPath: string;
  /** Unix socket of containerd's task API. */
  readonly shimSocketPath: string;
  /** Another runtime for pods that cannot be machines, and the namespaces of such pods; undefined: none. */
  readonly delegate: { readonly socketPath: string; readonly namespaces: readonly string[] } | undefined;
  /** Address for exec, attach and port-forward of CRI; port 0 takes any free port. */
  readonly streaming: { readonly address: string; readonly port: number; readonly idleMs: number };
  /** Address of metrics over TCP; undefined: none. */
  readonly metrics: { readonly address: string; readonly port: number; readonly clients: 'local' | 'any' } | undefined;
  /** Port of 127.0.0.1 for the dashboard; undefined: none. */
  readonly dashboardPort: number | undefined;
  /** Base URL of a collector of traces; undefined: none. */
  readonly traces: string | undefined;
  /** Directory that skopeo uses as /etc/containers: registries.conf (mirrors), certs.d, policy.json. */
  readonly containersDirectory: string;
  /** Credentials file for pulls without their own; undefined: none. */
  readonly authFile: string | undefined;
  /** CNI configuration; undefined if not set. */
  readonly cniConfig: { readonly kind: 'builtIn' } | { readonly kind: 'directory'; readonly path: string } | undefined;
  /** Directories of CNI plugins; undefined: the defaults. */
  readonly cniPluginDirectories: readonly string[] | undefined;
  /** Limit on the access of pods on the built-in network to the node. */
  readonly networkPolicy: NetworkPolicy;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly nodeName: string;
  /** Storage of the guests' serial consoles. */
  readonly console: WordOf<'console'>;
  /** Requires a host cgroup for every machine. */
  readonly requiresCgroup: boolean;
  /** Allows the host to swap machines' memory. */
  readonly maySwap: boolean;
  /** Limit on each machine's reads from each disk of the node, and the same on its writes; undefined: no limit. */
  readonly diskBytesPerSecond: number | undefined;
  /** Accelerator; undefined: chosen by the probe. */
  readonly accelerator: 'kvm' | 'tcg' | undefined;
  /** Number of machines kept ready for pods. */
  readonly poolSize: PoolSize;
  /** Template that machines may share: the node's (`on`), that of their namespace (`namespace`), or none (`off`). */
  readonly template: TemplateChoice;
  /** Nominal memory of machines in `MiB`, the limit for one pod; undefined: half of the node's, at most 16 GiB. */
  readonly machineMemoryMiB: number | undefined;
  /** Memory that the node keeps available, in `MiB`; undefined: a part of the node's. */
  readonly memoryReserveMiB: number | undefined;
  /** The first command that needs a node starts one in the background. */
  readonly startsNode: boolean;
  /** Idle time after which such a node ends, in `ms`. */
  readonly idleMs: number;
  /** Limits on the pods that are kept after their end. */
  readonly endedPods: { readonly pods: number; readonly bytes: number };
  /** Debian mirror for set-up; default: that of the host's apt. */
  readonly mirror?: string;
  /** Environment of npm when it checks for newer packages: the settings of its registry. */
  readonly npmEnv: Readonly<Record<string, string>>;
  /** Directory of the sources. */
  readonly repo: string;
}

/** Values that `podvm daemon` uses when neither its file nor the environment sets one. */
export const daemonDefaults: FileSettings = Object.fromEntries(
  Object.entries(settings).flatMap(([key, setting]) =>
    'daemonDefault' in setting ? [[key, setting.daemonDefault]] : [],
  ),
);

const defaultRoot = settings.root.default;
const defaultSockets = '/run/podvm';
/** Size of sun_path, 108 bytes, without the final zero. */
const maxSocketPathBytes = 107;

/** Reads the configuration. Errors: `invalid`, naming the setting. */
export function readConfiguration(
  options: { readonly root?: string; readonly logLevel?: string },
  env: NodeJS.ProcessEnv,
  repo: string,
  file: FileSettings = {},
): Configuration {
  const given = (key: SettingName) => env[settings[key].env] ?? file[key];
  /** Returns the name under which the user set the value. */
  const nameOf = (key: SettingName) => (env[settings[key].env] === undefined ? key : settings[key].env);
  const number = (key: NumberSetting, value: string) => wholeNumber(nameOf(key), value, settings[key].type);
  const word = <K extends WordSetting>(key: K, option?: string): WordOf<K> =>
    oneOf<WordOf<K>>(nameOf(key), option ?? given(key) ?? settings[key].default, settings[key].type.words);

  const root = isInside ? insideRoot : resolve(options.root ?? given('root') ?? usualRoot(env));
  const sockets = root === defaultRoot ? defaultSockets : root;
  const socketPath = join(sockets, 'podvm.sock');
  const criSocketPath = resolve(given('criSocket') ?? join(sockets, 'cri.sock'));
  const shimSocketPath = resolve(given('shimSocket') ?? join(sockets, 'shim.sock'));
  for (const path of [socketPath, criSocketPath, shimSocketPath]) {
    if (Buffer.byteLength(path) <= maxSocketPathBytes) continue;
    throw new PodvmError(
      'invalid',
      `Cannot use the socket ${path}: the path must have at most ${maxSocketPathBytes} bytes`,
      {
        fix: 'Choose a state directory, or a PODVM_CRI_SOCKET, with a shorter path.',
      },
    );
  }
  const mirror = given('mirror');
  const memory = given('machineMemoryMiB');
  const reserve = given('memoryReserveMiB');
  const authFile = given('authFile');
  const accelerator = word('accelerator');
  const pool = given('pool') ?? settings.pool.default;
  const template = word('template');
  const poolSize = pool === settings.pool.type.or ? autoPool(template) : number('pool', pool);
  if (poolSize !== 0 && template !== 'on') {
    throw new PodvmError(
      'invalid',
      `Cannot use ${nameOf('pool')}: the pool needs the node's template, which ${nameOf('template')} disables`,
      { fix: `Omit the pool, or set ${nameOf('template')} to on.` },
    );
  }
  return {
    root,
    socketPath,
    socketGroup: groupOf(nameOf('socketGroup'), given('socketGroup')),
    criSocketPath,
    shimSocketPath,
    delegate: delegateOf(nameOf('delegate'), given('delegate'), criSocketPath, {
      name: nameOf('delegateNamespaces'),
      value: given('delegateNamespaces') ?? settings.delegateNamespaces.default,
    }),
    streaming: {
      ...addressOf(nameOf('streaming'), given('streaming') ?? settings.streaming.default),
      idleMs:
        60_000 * number('streamingIdleMinutes', given('streamingIdleMinutes') ?? settings.streamingIdleMinutes.default),
    },
    metrics: metricsOf(nameOf('metricsAddress'), given('metricsAddress'), word('metricsClients')),
    dashboardPort: dashboardPortOf(nameOf('dashboardAddress'), given('dashboardAddress')),
    traces: collectorOf(nameOf('traces'), given('traces')),
    containersDirectory: resolve(given('containers') ?? settings.containers.default),
    authFile: authFile === undefined ? undefined : absolute(nameOf('authFile'), authFile),
    cniConfig: cniConfigOf(nameOf('cniConfig'), given('cniConfig')),
    cniPluginDirectories: given('cniPlugins')
      ?.split(':')
      .map((path) => absolute(nameOf('cniPlugins'), path)),
    networkPolicy: word('networkPolicy'),
    logLevel: word('log', options.logLevel),
    logFormat: word('logFormat'),
    nodeName: hostname(),
    console: word('console'),
    requiresCgroup: word('hostLimits') === 'required',
    maySwap: word('swap') === 'on',
    diskBytesPerSecond: rateOf(nameOf('diskRate'), given('diskRate')),
    accelerator: accelerator === 'auto' ? undefined : accelerator,
    poolSize,
    template,
    machineMemoryMiB: memory === undefined ? undefined : number('machineMemoryMiB', memory),
    memoryReserveMiB: reserve === undefined ? undefined : number('memoryReserveMiB', reserve),
    startsNode: word('background') === 'on',
    idleMs: 1000 * number('idleSeconds', given('idleSeconds') ?? settings.idleSeconds.default),
    endedPods: {
      pods: number('endedPods', given('endedPods') ?? settings.endedPods.default),
      bytes: 2 ** 20 * number('endedPodsMiB', given('endedPodsMiB') ?? settings.endedPodsMiB.default),
    },
    ...(mirror === undefined ? {} : { mirror }),
    npmEnv: npmEnvOf(env),
    repo,
  };
}

/** Socket of the node of root with its usual state directory. */
const machineSocket = join(defaultSockets, 'podvm.sock');

/**
 * The state directory without a setting. An ordinary user's is where the XDG Base Directory Specification wants it, which has
 * paths ignored that are empty or relative; until it is made, it is that of root for members of the group that may use root's node.
 */
export function usualRoot(env: NodeJS.ProcessEnv, ofRoot = machineSocket): string {
  if (process.getuid?.() === 0) return defaultRoot;
  const given = env['XDG_DATA_HOME'] ?? '';
  const own = join(isAbsolute(given) ? given : join(homedir(), '.local/share'), 'podvm');
  return !existsSync(own) && mayConnect(ofRoot) ? defaultRoot : own;
}

function mayConnect(socketPath: string): boolean {
  try {
    accessSync(socketPath, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function groupOf(name: string, value: string | undefined): string | undefined {
  if (value === undefined || /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$/.test(value)) return value;
  throw new PodvmError('invalid', `Cannot use ${name}: it must be the name of a group, got ${value}`, {
    fix: 'Make one with `groupadd podvm`, and write podvm.',
  });
}

/** Machines of the pool are restored from the node's template. */
const autoPool = (template: TemplateChoice): PoolSize => (template === 'on' ? 'auto' : 0);

const endpointPrefix = 'unix://';
/** The namespaces of Kubernetes: a DNS label each (RFC 1123). */
const namespacePattern = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

function delegateOf(
  name: string,
  value: string | undefined,
  criSocketPath: string,
  list: { readonly name: string; readonly value: string },
): Configuration['delegate'] {
  const namespaces = list.value.split(',').map((each) => each.trim());
  if (!namespaces.every((each) => each === '*' || namespacePattern.test(each))) {
    throw new PodvmError('invalid', `Cannot use ${list.name}: it must be a list of namespaces, got ${list.value}`, {
      fix: 'Write it as kube-system,monitoring, or as * for all namespaces.',
    });
  }
  if (value === undefined) return undefined;
  const socketPath = resolve('/', value.slice(endpointPrefix.length));
  const isSocket = value.startsWith(`${endpointPrefix}/`) && Buffer.byteLength(socketPath) <= maxSocketPathBytes;
  if (isSocket && socketPath !== criSocketPath) return { socketPath, namespaces };
  const wanted = isSocket ? 'another socket than criSocket' : 'unix:// and the absolute path of a socket';
  throw new PodvmError('invalid', `Cannot use ${name}: it must be ${wanted}, got ${value}`, {
    fix: 'Write it as unix:///run/containerd/containerd.sock.',
  });
}

function collectorOf(name: string, value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const url = URL.parse(value);
  const isPlain = url !== null && /^https?:$/.test(url.protocol) && `${url.username}${url.password}` === '';
  if (isPlain && url.search === '' && url.hash === '') return url.href.replace(/\/+$/, '');
  throw new PodvmError('invalid', `Cannot use ${name}: it must be an http or https URL without a user, got ${value}`, {
    fix: 'Write it as http://127.0.0.1:4318, without /v1/traces.',
  });
}

/** A lower rate would delay the start of a machine. */
const minRate = 1e6;

function rateOf(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const quantity = parseQuantity(value);
  const rate = quantity === undefined ? Number.NaN : unitsOf(quantity);
  if (rate >= minRate) return rate;
  throw new PodvmError('invalid', `Cannot use ${name}: it must be 1M or more, in bytes a second, got ${value}`, {
    fix: 'Write it as 50M, or leave it out.',
  });
}

/** Keeps only the variables with which npm finds its registry. `podvm` passes the CAs under another name. */
function npmEnvOf(env: NodeJS.ProcessEnv): Readonly<Record<string, string>> {
  const wanted = /^(?:PATH|HOME|npm_config_.*|(?:https?|no)_proxy|(?:HTTPS?|NO)_PROXY)$/;
  const taken = Object.entries(env).flatMap(([name, value]) =>
    value !== undefined && wanted.test(name) ? [[name, value] as const] : [],
  );
  const ca = env['PODVM_NPM_CA_CERTS'];
  return { ...Object.fromEntries(taken), ...(ca === undefined ? {} : { NODE_EXTRA_CA_CERTS: ca }) };
}

/** Selects the settings for the check for updates. */
export const updateRequestOf = ({ root, repo, mirror, npmEnv }: Configuration): UpdateRequest => ({
  root,
  repo,
  ...(mirror === undefined ? {} : { mirror }),
  npmEnv,
});

interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly or?: string;
}

function addressOf(name: string, value: string): { readonly address: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(value) ?? [];
  const address = bracketed ?? plain ?? '';
  if (isIP(address) !== 0 && Number(port) <= 65_535) return { address, port: Number(port) };
  throw new PodvmError('invalid', `Cannot use ${name}: it must be an IP address and a port, got ${value}`, {
    fix: 'Write it as 127.0.0.1:10010 or [::1]:10010.',
  });
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function metricsOf(name: string, value: string | undefined, clients: 'local' | 'any'): Configuration['metrics'] {
  if (value === undefined) return undefined;
  const where = addressOf(name, value);
  if (clients === 'any' || loopback.check(where.address, isIP(where.address) === 6 ? 'ipv6' : 'ipv4'))
    return { ...where, clients };
  throw new PodvmError(
    'invalid',
    `Cannot use ${name}: other hosts would reach ${where.address}, and read the names of all pods and images without credentials`,
    { fix: 'Use an address such as 127.0.0.1:10011, or set metricsClients to any.' },
  );
}

function dashboardPortOf(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const { address, port } = addressOf(name, value);
  if (address === '127.0.0.1') return port;
  throw new PodvmError('invalid', `Cannot use ${name}: the dashboard is served on 127.0.0.1 only, got ${value}`, {
    fix: 'Write it as 127.0.0.1:8420; reach it from another host by `ssh -L 8420:127.0.0.1:8420`.',
  });
}

const builtIn = 'built-in';

function cniConfigOf(name: string, value: string | undefined): Configuration['cniConfig'] {
  if (value === undefined) return undefined;
  return value === builtIn ? { kind: 'builtIn' } : { kind: 'directory', path: absolute(name, value, builtIn) };
}

function absolute(name: string, value: string, otherwise?: string): string {
  if (value.startsWith('/')) return resolve(value);
  const or = otherwise === undefined ? '' : `, or ${otherwise}`;
  throw new PodvmError('invalid', `Cannot use ${name}: it must be an absolute path${or}, got ${value}`, {
    fix: 'Give a path that begins with a slash; see docs/reference/settings.md.',
  });
}

function wholeNumber(name: string, value: string, { min, max, or }: Bounds): number {
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= min && number <= max) return number;
  throw new PodvmError(
    'invalid',
    `Cannot use ${name}: it must be a whole number from ${min} to ${max}${or === undefined ? '' : ` or ${or}`}, got ${value}`,
    {
      fix: 'Correct it, or leave it out for the default; see docs/reference/settings.md.',
    },
  );
}

function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((word) => word === value);
  if (found !== undefined) return found;
  throw new PodvmError('invalid', `Cannot use ${name}: it must be one of ${allowed.join(', ')}, got ${value}`, {
    fix: 'Correct it, or leave it out for the default; see docs/reference/settings.md.',
  });
}
