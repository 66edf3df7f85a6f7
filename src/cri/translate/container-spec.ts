import { totalmem } from 'node:os';
import { isAbsolute, join, normalize } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { createProcessRoom } from '#sandbox/container/process-size.ts';
import type { ContainerSpec } from '#sandbox/sandbox.ts';
import type { ContainerConfig, LinuxContainerResources, Mount, PodSandboxConfig } from '../schema/api_pb.ts';
import { devicesOf } from './devices.ts';
import { refuseHostNamespaces } from './host-namespaces.ts';
import { numberOf } from './int64.ts';
import { mountsOf } from './mounts.ts';
import { memoryRequestOf, resourcesOf } from './resources.ts';
import { checkTables } from './sandbox-spec.ts';
import { securityOf } from './security.ts';
import { checkUserNamespaceOf } from './user-namespace.ts';

/** Converts a CRI container config. Errors: `invalid`, `unsupported`; those of `securityOf`. */
export async function containerSpecOf(
  config: ContainerConfig,
  { logDirectory, linux: pod }: Pick<PodSandboxConfig, 'logDirectory' | 'linux'>,
): Promise<ContainerSpec> {
  const { name, attempt } = metadataOf(config);
  const what = `container ${printable(name)}`;
  const { linux, image } = config;
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', `Cannot create ${what}: its config has no image`);
  }
  const devices = devicesOf(what, config);
  refuseHostNamespaces(what, linux?.securityContext?.namespaceOptions);
  checkUserNamespaceOf(what, linux?.securityContext?.namespaceOptions, pod?.securityContext?.namespaceOptions);
  const logPath = logPathOf(what, logDirectory, config.logPath);
  const messageFile = terminationMount(config);
  return {
    name,
    attempt,
    image: image.image,
    imagePullPolicy: 'Never', // clients pull with PullImage
    ...(config.command.length === 0 ? {} : { command: config.command }),
    ...(config.args.length === 0 ? {} : { args: config.args }),
    ...(config.workingDir === '' ? {} : { workingDir: config.workingDir }),
    env: environmentOf(what, config),
    mounts: mountsOf(
      what,
      config.mounts.filter((mount) => mount !== messageFile),
    ),
    ...(devices.length === 0 ? {} : { devices }),
    security: await securityOf(linux?.securityContext),
    resources: { ...resourcesOf(linux?.resources), ...memoryRequestOf(linux?.resources, totalmem()) },
    tty: config.tty,
    stdin: config.stdin,
    ...(messageFile === undefined ? {} : { terminationMessagePath: messageFile.containerPath }),
    ...oomScoreOf(linux?.resources),
    ...(logPath === undefined ? {} : { logPath }),
  };
}

/** Converts the environment. Errors: `invalid` above the kernel's limits, and for a value that is not text. */
function environmentOf(what: string, { command, args, envs }: ContainerConfig): ContainerSpec['env'] {
  const room = createProcessRoom(what);
  for (const [at, argument] of [...command, ...args].entries()) room.take(`argument ${at}`, argument);
  return envs.map(({ key, value }) => {
    const text = textOf(what, key, value);
    room.takeVariable(key, text);
    return { name: key, value: text };
  });
}

/** Decodes a value: CRI carries bytes, the runtime's JSON text. Other Secrets can be mounted. */
function textOf(what: string, key: string, value: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value);
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot create ${what}: its variable ${printable(key, 80)} is not UTF-8`, {
      cause,
      fix: 'Mount its Secret or ConfigMap as a volume: a file can hold any bytes.',
    });
  }
}

const maxNameChars = 253;

function metadataOf(config: ContainerConfig): { readonly name: string; readonly attempt: number } {
  const { metadata } = config;
  if (metadata === undefined) throw new PodvmError('invalid', 'Cannot create a container: its config has no metadata');
  const { name, attempt } = metadata;
  if (name === '' || name.length > maxNameChars || !/^[A-Za-z0-9_.-]+$/.test(name) || /^\.+$/.test(name)) {
    throw new PodvmError(
      'invalid',
      `Cannot create a container: its name must have 1 to ${maxNameChars} letters, digits, ".", "_" and "-", ` +
        `got ${printable(JSON.stringify(name), 80)}`,
    );
  }
  checkTables(`container ${name}`, config);
  return { name, attempt };
}

/** Kubernetes' annotation for the mount that is not a volume but the termination message file. */
const terminationPathAnnotation = 'io.kubernetes.container.terminationMessagePath';

/**
 * Returns the mount of the termination log, which is written in the guest and copied back when the container has ended.
 */
export function terminationMount(config: Pick<ContainerConfig, 'annotations' | 'mounts'>): Mount | undefined {
  const path = config.annotations[terminationPathAnnotation];
  return path === undefined ? undefined : config.mounts.find(({ containerPath }) => containerPath === path);
}

/** Returns `<log_directory>/<log_path>`; undefined when either is missing: the log is then in the state directory. */
function logPathOf(what: string, directory: string, path: string): string | undefined {
  if (directory === '' || path === '') return undefined;
  if (isAbsolute(directory) && !normalize(path).startsWith('..')) return join(directory, path);
  throw new PodvmError(
    'invalid',
    `Cannot create ${what}: its log must be inside an absolute directory, ` +
      `got ${printable(JSON.stringify(path), 80)} in ${printable(JSON.stringify(directory), 80)}`,
  );
}

/** Returns the score; 0 is omitted, since the guest has no processes outside its pod. */
function oomScoreOf(resources: LinuxContainerResources | undefined): { readonly oomScoreAdj?: number } {
  const given = resources?.oomScoreAdj ?? 0n;
  return given === 0n ? {} : { oomScoreAdj: numberOf('oom_score_adj', given, [-1000, 1000]) };
}
