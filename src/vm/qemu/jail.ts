import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';

/**
 * The VMM's jail: its own user, mount, pid, ipc, uts and cgroup namespaces, an unprivileged uid, no capability, no new
 * privileges, a filter of system calls, limits of its own, the sysroot's `/usr` as its whole world and one directory.
 * Nothing but the chain of argv is made here: the programs are util-linux's and bubblewrap.
 */
export interface JailSpec {
  readonly uid: number;
  /** Directory of extracted packages whose `/usr` the VMM sees. */
  readonly sysroot: string;
  /** The machine's directory; seen inside as `/machine`. */
  readonly directory: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** Directory of the template to restore from; seen inside as `/template`, read-only. */
  readonly template: string | undefined;
  readonly netns: string | undefined;
  /** Device nodes on the host to be seen inside, as [outside, inside]. */
  readonly devices: readonly (readonly [string, string])[];
  /** The largest file that it may write, in bytes; absent: no limit. */
  readonly maxFileBytes?: number | undefined;
}

/**
 * Descriptors that the whole chain inherits beside the standard ones: on `info` bubblewrap reports the VMM's pid, from
 * `seccomp` it reads the filter (`seccomp-filter.ts`).
 */
export const jailFds = { info: 3, seccomp: 4 } as const;

/**
 * The VMM's rlimits (setrlimit(2)). Descriptors: one for each disk, event and connection. Processes: its threads, also
 * where the host gives us no cgroup to count them in. No core, which would hold the guest's memory: 1 is less than any
 * core file has, and the one value that also stops a core that goes to a program by a pipe (core(5), fs/coredump.c).
 */
const limits = { core: 1, nofile: 4096, nproc: 1024, memlock: 65_536, msgqueue: 0, sigpending: 4096 } as const;

/** Where the jail shows things. */
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
  qemu: '/usr/bin/qemu-system-x86_64',
} as const;

/** The whole command: enter the netns as root, become nobody, build the world, run `command` as its pid 1. */
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
    // Pid 1 of its namespace, so that killing it ends all of it. Not --die-with-parent: it outlives the daemon.
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
    ['--bind', spec.directory, inside.machine],
    // bubblewrap's binds are nodev; what is attached while the machine runs may be a device.
    ['--dev-bind', `${spec.directory}/devices`, inside.devices],
    ['--remount-ro', '/'],
    ['--chdir', '/'],
  ];
  return ['bwrap', ...options.flat()];
}

/**
 * The jail is built by the unprivileged user, who must be able to reach what is shown in it.
 * Errors: `failedPrecondition`, naming the first directory that is closed to others.
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
