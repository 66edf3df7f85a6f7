import type { ContainerParams } from '#wire/container-params.ts';
import { notReplaced, type OciMount } from './mount-order.ts';
import type { PodUsers } from './pod-users.ts';
import type { ContainerDevices } from './devices.ts';
import type { ResolvedUser } from './users.ts';

/** OCI's runtime configuration, for the fields used here: https://github.com/opencontainers/runtime-spec */
export interface OciProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly width: number; readonly height: number };
  readonly user: {
    readonly uid: number;
    readonly gid: number;
    readonly additionalGids: readonly number[];
    readonly umask: number;
  };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly [more: string]: unknown;
}

export interface OciInput {
  readonly params: ContainerParams;
  readonly user: ResolvedUser;
  readonly hostname: string;
  /** Mounts of volumes and files, with their source paths in the guest. */
  readonly mounts: readonly OciMount[];
  /** Process whose pid namespace is joined; undefined: a new one is made. */
  readonly pidNamespaceOf: number | undefined;
  /** The pod's user namespace, which the container joins. */
  readonly users: PodUsers | undefined;
  readonly cgroupPath: string;
  readonly devices: ContainerDevices;
}

const defaultPath = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Kubernetes' defaults, as in containerd and CRI-O. */
const defaultMaskedPaths = [
  ...['/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats'],
  ...['/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi', '/sys/firmware'],
  '/sys/devices/virtual/powercap',
];
const defaultReadonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export function ociConfig(input: OciInput): object {
  const { params, users } = input;
  const { namespace, ...mappings } = users?.oci ?? {};
  const { seccomp } = params;
  return {
    ociVersion: '1.2.0',
    ...(typeof seccomp === 'string' ? { annotations: { 'run.oci.seccomp_bpf_data': seccomp } } : {}),
    process: ociProcess(params, input.user, input.hostname),
    root: { path: 'rootfs', readonly: params.readOnlyRootfs },
    mounts: [...notReplaced(systemMounts(params.privileged, users), input.mounts), ...input.mounts],
    linux: {
      ...mappings,
      cgroupsPath: input.cgroupPath,
      namespaces: [
        ...(namespace === undefined ? [] : [namespace]),
        input.pidNamespaceOf === undefined
          ? { type: 'pid' }
          : { type: 'pid', path: `/proc/${input.pidNamespaceOf}/ns/pid` },
        { type: 'mount' },
        { type: 'cgroup' },
      ],
      resources: ociResources(params, input.devices),
      devices: input.devices.nodes,
      maskedPaths: params.maskedPaths ?? (params.privileged ? [] : defaultMaskedPaths),
      readonlyPaths: params.readonlyPaths ?? (params.privileged ? [] : defaultReadonlyPaths),
      ...(typeof seccomp === 'object' && seccomp !== null ? { seccomp } : {}),
    },
  };
}

export function ociProcess(params: ContainerParams, user: ResolvedUser, hostname: string): OciProcess {
  const { process } = params;
  return {
    terminal: params.tty,
    ...(params.columns !== undefined && params.rows !== undefined
      ? { consoleSize: { width: params.columns, height: params.rows } }
      : {}),
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids, umask: 0o022 },
    args: process.args,
    env: withDefaults(process.env, user, hostname, params.tty),
    cwd: process.cwd,
    capabilities: {
      bounding: process.capabilities,
      effective: process.capabilities,
      permitted: process.capabilities,
      inheritable: process.ambientCapabilities ?? [],
      ambient: process.ambientCapabilities ?? [],
    },
    noNewPrivileges: process.noNewPrivileges,
    rlimits: process.rlimits,
    ...(process.oomScoreAdj === undefined ? {} : { oomScoreAdj: process.oomScoreAdj }),
  };
}

function withDefaults(env: readonly string[], user: ResolvedUser, hostname: string, tty: boolean): string[] {
  const defaults = [defaultPath, `HOSTNAME=${hostname}`, `HOME=${user.home}`, ...(tty ? ['TERM=xterm'] : [])];
  const nameOf = (entry: string) => entry.slice(0, entry.indexOf('=') + 1);
  const given = new Set(env.map(nameOf));
  return [...defaults.filter((entry) => !given.has(nameOf(entry))), ...env];
}

const ttyGroup = 5;

function systemMounts(isPrivileged: boolean, users: PodUsers | undefined): OciMount[] {
  const tty = users === undefined || users.hasGroup(ttyGroup) ? [`gid=${ttyGroup}`] : [];
  const mode = isPrivileged ? 'rw' : 'ro';
  const usual = ['nosuid', 'noexec', 'nodev'];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: usual },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', ...tty],
    },
    // The pod has one for all containers, because they share the IPC namespace.
    { destination: '/dev/shm', type: 'bind', source: '/dev/shm', options: ['rbind', 'rprivate', 'rw', ...usual] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: usual },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...usual, mode] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...usual, 'relatime', mode] },
  ];
}

function ociResources(params: ContainerParams, devices: ContainerDevices): object {
  const { memoryLimitBytes, cpuQuotaUs, cpuPeriodUs, cpuShares, pidsLimit } = params.resources;
  return {
    devices: devices.rules,
    ...(memoryLimitBytes === undefined ? {} : { memory: { limit: memoryLimitBytes } }),
    cpu: {
      ...(cpuShares === undefined ? {} : { shares: cpuShares }),
      ...(cpuQuotaUs === undefined ? {} : { quota: cpuQuotaUs, period: cpuPeriodUs ?? 100_000 }),
    },
    ...(pidsLimit === undefined ? {} : { pids: { limit: pidsLimit } }),
    // Same as kubelet on cgroup v2: a container over its limit is killed as a whole, not just one of its processes.
    unified: { 'memory.oom.group': '1' },
  };
}
