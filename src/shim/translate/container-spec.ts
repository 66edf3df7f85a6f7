import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { allCapabilities } from '#sandbox/container/capabilities.ts';
import type { ContainerSecurity } from '#sandbox/spec/container-security.ts';
import type { ContainerSpec, OutputFifos } from '#sandbox/sandbox.ts';
import type { OciProcess, OciSpec } from '../bundle/oci-spec.ts';
import { devicesOf } from './devices.ts';
import { isBind, mountsOf } from './mounts.ts';
import { resourcesOf } from './resources.ts';
import { sandboxIdOf } from './sandbox-spec.ts';

/** Facts from which a container is made, besides its bundle's spec. */
export interface ContainerFacts {
  /** Id of the task. */
  readonly id: string;
  /** Counts the containers of that name in the pod. */
  readonly attempt: number;
  /** Directories of its root file system, topmost first. */
  readonly rootfs: readonly string[];
  /** The pid that containerd has of its pod. */
  readonly podPid: number;
  readonly hasStdin: boolean;
  readonly outputs: OutputFifos;
}

const annotation = {
  name: 'io.kubernetes.cri.container-name',
  image: 'io.kubernetes.cri.image-name',
  terminationPath: 'io.kubernetes.container.terminationMessagePath',
} as const;

/** Converts the spec of a container, which is complete: containerd has read the image. Errors: `unsupported`, `invalid`. */
export async function containerSpecOf(spec: OciSpec, facts: ContainerFacts): Promise<ContainerSpec> {
  const { process } = spec;
  const name = spec.annotations?.[annotation.name] ?? facts.id;
  const what = `container ${printable(name, 80)}`;
  checkName(what, name);
  checkAppArmor(what, process);
  const message = terminationMountOf(spec);
  const mounts = (spec.mounts ?? []).filter((mount) => mount !== message);
  const { oomScoreAdj } = process;
  return {
    name,
    attempt: facts.attempt,
    image: spec.annotations?.[annotation.image] ?? '',
    imagePullPolicy: 'Never',
    rootfs: facts.rootfs,
    command: process.args ?? [],
    workingDir: process.cwd,
    env: (process.env ?? []).map(variableOf),
    mounts: mountsOf(what, mounts, sandboxIdOf(spec)),
    devices: await devicesOf(what, spec),
    security: securityOf(spec),
    resources: resourcesOf(spec.linux.resources),
    ...(hasOwnPids(what, spec, facts.podPid) ? { ownPidNamespace: true } : {}),
    tty: process.terminal,
    stdin: facts.hasStdin,
    ...(message === undefined ? {} : { terminationMessagePath: message.destination }),
    // 0 has no effect: the guest has no processes outside its pod.
    ...(oomScoreAdj === undefined || oomScoreAdj === null || oomScoreAdj === 0 ? {} : { oomScoreAdj }),
    outputFifos: facts.outputs, // containerd writes the log
  };
}

/** The mount of the termination log, which is written in the guest and copied back when the container has ended. */
export function terminationMountOf({ annotations, mounts }: OciSpec) {
  const path = annotations?.[annotation.terminationPath];
  return path === undefined ? undefined : mounts?.find((mount) => mount.destination === path && isBind(mount));
}

const maxNameChars = 253;

function checkName(what: string, name: string): void {
  if (name.length <= maxNameChars && /^[A-Za-z0-9_.-]+$/.test(name) && !/^\.+$/.test(name)) return;
  throw new PodvmError('invalid', `Cannot create ${what}: its name must have letters, digits, ".", "_" and "-"`);
}

/** Containerd asks for its own profile on a host with AppArmor; that one protects the host's kernel. */
function checkAppArmor(what: string, { apparmorProfile }: OciProcess): void {
  if (['', 'unconfined', 'cri-containerd.apparmor.d'].includes(apparmorProfile)) return;
  throw new PodvmError('unsupported', `Cannot create ${what}: the guest's kernel does not support AppArmor`, {
    fix: 'Remove the AppArmor profile, or set it to Unconfined.',
  });
}

function variableOf(pair: string): { readonly name: string; readonly value: string } {
  const at = pair.indexOf('=');
  return at < 0 ? { name: pair, value: '' } : { name: pair.slice(0, at), value: pair.slice(at + 1) };
}

function hasOwnPids(what: string, { linux }: OciSpec, podPid: number): boolean {
  const path = linux.namespaces?.find(({ type }) => type === 'pid')?.path ?? '';
  if (path === '') return true;
  if (path === `/proc/${podPid}/ns/pid`) return false;
  throw new PodvmError('unsupported', `Cannot create ${what}: it is to share the processes of one other container`, {
    fix: 'Leave --target out, or set shareProcessNamespace in the pod.',
  });
}

function securityOf(spec: OciSpec): ContainerSecurity {
  const { process, linux, root } = spec;
  const { user, capabilities } = process;
  const known = (names: readonly string[] | null | undefined) =>
    (names ?? []).filter((name) => allCapabilities.includes(name)); // others are of newer kernels than the guest's
  return {
    privileged: isPrivileged(spec),
    runAsUser: user.uid,
    runAsGroup: user.gid,
    runAsNonRoot: false, // the kubelet checks it
    supplementalGroups: user.additionalGids ?? [],
    supplementalGroupsPolicy: 'strict', // containerd has read the image's groups
    readOnlyRootFilesystem: root.readonly,
    allowPrivilegeEscalation: !process.noNewPrivileges,
    addCapabilities: known(capabilities?.bounding),
    dropCapabilities: ['ALL'],
    ambientCapabilities: known(capabilities?.ambient),
    seccomp: linux.seccomp ? { kind: 'localhost', profile: linux.seccomp } : { kind: 'unconfined' },
    procMount: 'Default',
    maskedPaths: linux.maskedPaths ?? [],
    readonlyPaths: linux.readonlyPaths ?? [],
  };
}

/** Whether a container is privileged: no other container may write to /sys. */
function isPrivileged({ mounts }: OciSpec): boolean {
  const sys = mounts?.find(({ destination, type }) => destination === '/sys' && type === 'sysfs');
  return sys !== undefined && !(sys.options ?? []).includes('ro');
}
