import { readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** Confinement of a process as the kernel enforces and reports it (proc(5), namespaces(7), cgroups(7)). */
export interface Confinement {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  /** Union of its five capability sets, in hexadecimal. */
  readonly capabilities: string;
  readonly noNewPrivileges: boolean;
  /** Number of stacked system call filters. */
  readonly seccompFilters: number;
  /** Kinds of namespaces that it does not share with this process. */
  readonly namespaces: readonly string[];
  readonly limits: Readonly<Record<keyof typeof limitNames, number | 'unlimited'>>;
  /** Limits of its host cgroup. */
  readonly cgroup: Readonly<Record<keyof typeof cgroupFiles, number | 'unlimited'>>;
  /** Host files that the process sees. */
  readonly mounts: readonly ConfinedMount[];
  /** Devices of the host that are mounted below its `/dev`. */
  readonly devices: readonly string[];
}

export interface ConfinedMount {
  readonly at: string;
  readonly type: string;
  readonly readOnly: boolean;
  /** Set-user-id bits and devices have no effect there. */
  readonly noSuid: boolean;
  readonly noDevices: boolean;
}

const namespaceKinds = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'] as const;

/** Names in /proc/PID/limits. */
const limitNames = {
  coreBytes: 'Max core file size',
  fileBytes: 'Max file size',
  openFiles: 'Max open files',
  processes: 'Max processes',
  lockedBytes: 'Max locked memory',
} as const;

/** Version 2's file, and version 1's with its controller. */
const cgroupFiles = {
  memoryBytes: ['memory.max', 'memory', 'memory.limit_in_bytes'],
  cpuMillis: ['cpu.max', 'cpu', 'cpu.cfs_quota_us'],
  processes: ['pids.max', 'pids', 'pids.max'],
} as const;
const cgroupRoot = '/sys/fs/cgroup';
/** Version 1 reports "unlimited" as the largest number of pages. */
const noMemoryLimit = 2 ** 60;
const usPerMilli = 100; // for a period of 100 ms

/** Reads the confinement. Errors: those of the kernel, if there is no such process or it may not be read. */
export async function readConfinement(pid: number): Promise<Confinement> {
  const [status, limits, mountinfo, cgroup, namespaces] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'latin1'),
    readFile(`/proc/${pid}/limits`, 'latin1'),
    readFile(`/proc/${pid}/mountinfo`, 'latin1'),
    readCgroup(pid),
    foreignNamespaces(pid),
  ]);
  const mounts = mountsOf(mountinfo);
  return {
    ...credentialsOf(status),
    namespaces,
    limits: limitsOf(limits),
    cgroup,
    mounts,
    // Its /dev is not read, since a hostile process may put links there.
    devices: mounts.filter(isDevice).map(({ at }) => at.slice('/dev/'.length)),
  };
}

type Credentials = Pick<Confinement, 'uid' | 'gid' | 'groups' | 'capabilities' | 'noNewPrivileges' | 'seccompFilters'>;

export function credentialsOf(status: string): Credentials {
  const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(status)?.[1]?.trim() ?? '';
  const numbers = (name: string) => field(name).split(/\s+/).filter(Boolean).map(Number);
  const sets = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((name) => BigInt(`0x${field(name) || 0}`));
  return {
    uid: numbers('Uid')[1] ?? -1, // real, effective, saved, of the file system
    gid: numbers('Gid')[1] ?? -1,
    groups: numbers('Groups'),
    capabilities: sets.reduce((all, set) => all | set, 0n).toString(16),
    noNewPrivileges: field('NoNewPrivs') === '1',
    // Kernels before 5.9 do not report the number.
    seccompFilters: Number(field('Seccomp_filters') || (field('Seccomp') === '2' ? 1 : 0)),
  };
}

export function limitsOf(text: string): Confinement['limits'] {
  const of = (name: string) => new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(text)?.[1] ?? 'unlimited';
  return mapValues(limitNames, (name) => numberOr(of(name)));
}

export function mountsOf(mountinfo: string): readonly ConfinedMount[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [, , , , at, options = ''] = before.split(' ');
    const [type = ''] = after.split(' ');
    if (at === undefined) return [];
    const has = (option: string) => options.split(',').includes(option);
    return [{ at, type, readOnly: has('ro'), noSuid: has('nosuid'), noDevices: has('nodev') }];
  });
}

const isDevice = ({ at, type, noDevices }: ConfinedMount) =>
  at.startsWith('/dev/') && !noDevices && !['tmpfs', 'devpts', 'mqueue'].includes(type);

async function foreignNamespaces(pid: number): Promise<readonly string[]> {
  const isForeign = async (kind: string) => {
    const [theirs, ours] = await Promise.all([`${pid}`, 'self'].map((of) => readlink(`/proc/${of}/ns/${kind}`)));
    return theirs !== ours;
  };
  const answers = await Promise.all(namespaceKinds.map(isForeign));
  return namespaceKinds.filter((_kind, at) => answers[at]);
}

async function readCgroup(pid: number): Promise<Confinement['cgroup']> {
  const lines = (await readFile(`/proc/${pid}/cgroup`, 'latin1')).trim().split('\n');
  const pathOf = (controller: string) => {
    const line = lines.find((each) => each.split(':')[1]?.split(',').includes(controller) === true);
    return line?.split(':').slice(2).join(':');
  };
  const read = async ([second, controller, first]: readonly [string, string, string]) => {
    const path = pathOf(controller);
    const file =
      path === undefined ? join(cgroupRoot, pathOf('') ?? '', second) : join(cgroupRoot, controller, path, first);
    const text = await readFile(file, 'latin1').catch(() => 'max'); // the root of a hierarchy has no limits
    return numberOr(text.trim().split(' ')[0] ?? 'max');
  };
  const [memoryBytes, quotaUs, processes] = await Promise.all([
    read(cgroupFiles.memoryBytes),
    read(cgroupFiles.cpuMillis),
    read(cgroupFiles.processes),
  ]);
  return {
    memoryBytes: memoryBytes !== 'unlimited' && memoryBytes > noMemoryLimit ? 'unlimited' : memoryBytes,
    cpuMillis: quotaUs === 'unlimited' || quotaUs < 0 ? 'unlimited' : quotaUs / usPerMilli,
    processes,
  };
}

const numberOr = (text: string): number | 'unlimited' => (/^-?\d+$/.test(text) ? Number(text) : 'unlimited');

function mapValues<K extends string, V, R>(table: Readonly<Record<K, V>>, of: (value: V) => R): Record<K, R> {
  const entries = Object.entries(table) as [K, V][]; // SAFE: the table's own keys
  return Object.fromEntries(entries.map(([key, value]) => [key, of(value)])) as Record<K, R>; // SAFE: each key was mapped
}

/** 1 also stops core dumps piped to a program (core(5)); 0 stops only files. */
const mostCoreBytes = 1;

/** Returns the restrictions that a jail should have and this one lacks, in a few words each. */
export function weaknesses(found: Confinement): readonly string[] {
  const { limits, cgroup } = found;
  const checks: readonly (readonly [boolean, string])[] = [
    [found.uid !== 0 && found.gid !== 0 && !found.groups.includes(0), 'it runs as root, or in root’s group'],
    [found.capabilities === '0', `it has capabilities: ${found.capabilities}`],
    [found.noNewPrivileges, 'it can gain privileges by running programs'],
    [found.seccompFilters > 0, 'it has no system call filter'],
    ...namespaceKinds.map((kind) => [found.namespaces.includes(kind), `it shares our ${kind} namespace`] as const),
    [limits.coreBytes !== 'unlimited' && limits.coreBytes <= mostCoreBytes, 'it may dump its memory'],
    [limits.processes !== 'unlimited', 'its processes are not limited'],
    [cgroup.memoryBytes !== 'unlimited', 'the host does not limit its memory'],
    [cgroup.processes !== 'unlimited', 'the host does not limit its threads'],
    [found.mounts.some(({ at, readOnly }) => at === '/' && readOnly), 'its root file system is writable'],
  ];
  return checks.flatMap(([holds, weakness]) => (holds ? [] : [weakness]));
}
