import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';

/**
 * The VMM's jail: separate user, mount, pid, ipc, uts and cgroup namespaces, an unprivileged uid, no capability, no new
 * privileges, a system call filter, resource limits, and a file system with only the sysroot's `/usr` and one
 * directory. Only the argument list is made here; the programs are util-linux's and bubblewrap.
 */
export interface JailSpec {
  readonly uid: number;
  /** Directory of extracted packages whose `/usr` the VMM sees. */
  readonly sysroot: string;
  /** The machine's directory, mounted as `/machine`. */
  readonly directory: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** File of QEMU's plugin, if there is one. */
  readonly plugin?: string | undefined;
  /** Directory of the template to restore from, mounted read-only as `/template`. */
  readonly template: string | undefined;
  readonly netns: string | undefined;
  /** Device nodes of the host to mount, as [outside, inside]. */
  readonly devices: readonly (readonly [string, string])[];
  /** Largest file that the VMM may write, in bytes; no limit if absent. */
  readonly maxFileBytes?: number | undefined;
}

/**
 * Descriptors inherited in addition to the standard streams: bubblewrap reports the VMM's pid on `info` and reads the
 * filter from `seccomp` (`seccomp-filter.ts`).
 */
export const jailFds = { info: 3, seccomp: 4 } as const;

/**
 * The VMM's rlimits (setrlimit(2)). Descriptors: one for each disk, event and connection. Processes: its threads, which
 * no cgroup counts on some hosts. Core: a core would hold the guest's memory; 1 is smaller than any core file, and the
 * only value that also stops a core piped to a program (core(5), fs/coredump.c).
 */
const limits = { core: 1, nofile: 4096, nproc: 1024, memlock: 65_536, msgqueue: 0, sigpending: 4096 } as const;

/** Paths inside the jail. */
export const inside = {
  machine: '/machine',
  sockets: '/machine/sockets',
  devices: '/machine/devices',
  kernel: '/boot/vmlinux',
  initramfs: '/boot/initramfs',
  memory: '/machine/memory',
  state: '/machine/state',
  templateMemory: '/template/memory',
  templateState: '/template/state',
  plugin: '/plugin/discard-translations.so',
  qemu: '/usr/bin/qemu-system-x86_64',
} as const;

/**
 * Returns the whole command: enter the netns as root, switch to the unprivileged user, build the jail, run `command` as
 * its pid 1.
 */
export function jailedCommand(spec: JailSpec, command: readonly string[]): string[] {
  const chain = [enterNetwork(spec), limitResources(spec), becomeUnprivileged(spec), buildWorld(spec)];
  return [...chain.flat(), '--', ...command];
}

function enterNetwork({ netns }: JailSpec): string[] {
  return netns === undefined ? [] : ['nsenter', `--net=${netns}`, '--'];
}

function limitResources({ maxFileBytes }: JailSpec): string[] {
  const all = { ...limits, ...(maxFileBytes === undefined ? {} : { fsize: maxFileBytes }) };
  return ['prlimit', ...Object.entries(all).map(([name, value]) => `--${name}=${value}:${value}`), '--'];
}

function becomeUnprivileged({ uid }: JailSpec): string[] {
  return [
    'setpriv',
    `--reuid=${uid}`,
    `--regid=${uid}`,
    '--clear-groups',
    '--no-new-privs',
    '--bounding-set=-all',
    '--inh-caps=-all',
    '--',
  ];
}

function buildWorld(spec: JailSpec): string[] {
  const options: readonly (readonly string[])[] = [
    ['--unshare-user', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try'],
    spec.netns === undefined ? ['--unshare-net'] : [],
    // As pid 1 of its namespace its death ends all processes in it. Not --die-with-parent: the VMM outlives the daemon.
    ['--as-pid-1'],
    ['--info-fd', String(jailFds.info)],
    ['--seccomp', String(jailFds.seccomp)],
    ['--cap-drop', 'ALL'],
    ['--clearenv'],
    ['--hostname', 'vmm'],
    ['--ro-bind', `${spec.sysroot}/usr`, '/usr'],
    ...['bin', 'lib', 'lib64', 'sbin'].map((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ['--dev', '/dev'],
    ...spec.devices.map(([outside, within]) => ['--dev-bind', outside, within]),
    ...(spec.template === undefined
      ? [
          ['--ro-bind', spec.kernel, inside.kernel],
          ['--ro-bind', spec.initramfs, inside.initramfs],
        ]
      : [['--ro-bind', spec.template, '/template']]),
    spec.plugin === undefined ? [] : ['--ro-bind', spec.plugin, inside.plugin],
    ['--bind', spec.directory, inside.machine],
    // bubblewrap's binds are nodev; disks attached later may be devices.
    ['--dev-bind', `${spec.directory}/devices`, inside.devices],
    ['--remount-ro', '/'],
    ['--chdir', '/'],
  ];
  return ['bwrap', ...options.flat()];
}

/**
 * Checks that the unprivileged user who builds the jail can reach the path. Errors: `failedPrecondition`, naming the
 * first directory that is closed to others.
 */
export async function assertReachable(path: string): Promise<void> {
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    const { mode } = await stat(directory);
    if ((mode & 0o001) === 0) {
      throw new PodvmError(
        'failedPrecondition',
        `Cannot show ${path} to the VMM: ${directory} is closed to other users, got mode ${(mode & 0o777).toString(8)}`,
        { fix: `Run \`chmod o+x ${directory}\`, or choose another state directory.` },
      );
    }
    if (directory === '/') return;
  }
}
