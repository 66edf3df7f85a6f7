import { readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { ContainerSecurity, SeccompProfile } from '#sandbox/spec/container-security.ts';
import type { PodContainer } from '../schema/container.ts';
import type { PodSpec } from '../schema/pod-spec.ts';
import type { SeccompSetting } from '../schema/security.ts';

const maxProfileBytes = 1024 * 1024;

/** Seccomp profiles from files, by `localhostProfile`, as parsed JSON. */
export type LocalProfiles = ReadonlyMap<string, unknown>;

/** Merges the security settings of a container with the pod's. */
export function containerSecurity(spec: PodSpec, container: PodContainer, profiles: LocalProfiles): ContainerSecurity {
  const pod = spec.securityContext;
  const own = container.securityContext;
  const privileged = own.privileged ?? false;
  const runAsUser = own.runAsUser ?? pod.runAsUser;
  const runAsGroup = own.runAsGroup ?? pod.runAsGroup;
  const groups = pod.fsGroup === undefined ? pod.supplementalGroups : [...pod.supplementalGroups, pod.fsGroup];
  return {
    privileged,
    ...(runAsUser === undefined ? {} : { runAsUser }),
    ...(runAsGroup === undefined ? {} : { runAsGroup }),
    runAsNonRoot: own.runAsNonRoot ?? pod.runAsNonRoot ?? false,
    supplementalGroups: [...new Set(groups)],
    ...(pod.supplementalGroupsPolicy === 'Strict' ? { supplementalGroupsPolicy: 'strict' as const } : {}),
    readOnlyRootFilesystem: own.readOnlyRootFilesystem ?? false,
    allowPrivilegeEscalation: own.allowPrivilegeEscalation ?? true,
    addCapabilities: own.capabilities?.add ?? [],
    dropCapabilities: own.capabilities?.drop ?? [],
    seccomp: privileged ? { kind: 'unconfined' } : seccompOf(own.seccompProfile ?? pod.seccompProfile, profiles),
    procMount: own.procMount ?? 'Default',
  };
}

/** Returns the profile; RuntimeDefault without a setting, as a kubelet with `seccompDefault` does. */
function seccompOf(setting: SeccompSetting | undefined, profiles: LocalProfiles): SeccompProfile {
  if (setting === undefined || setting.type === 'RuntimeDefault') return { kind: 'runtimeDefault' };
  if (setting.type === 'Unconfined') return { kind: 'unconfined' };
  return { kind: 'localhost', profile: profiles.get(setting.localhostProfile ?? '') };
}

/**
 * Reads every profile that the pod names, from below `directory`. Errors: `notFound`; `invalid` for a file that is too
 * large, not a JSON object, or outside the directory.
 */
export async function readLocalProfiles(spec: PodSpec, directory: string | undefined): Promise<LocalProfiles> {
  const settings = [
    spec.securityContext,
    ...[...spec.initContainers, ...spec.containers].map((it) => it.securityContext),
  ];
  const names = settings.flatMap((it) => it.seccompProfile?.localhostProfile ?? []);
  const profiles = new Map<string, unknown>();
  for (const name of new Set(names)) profiles.set(name, await readProfile(name, directory));
  return profiles;
}

async function readProfile(name: string, directory: string | undefined): Promise<unknown> {
  if (directory === undefined) {
    throw new PodvmError('notFound', `Cannot use the seccomp profile ${name}: no directory of profiles is configured`, {
      fix: 'Use the type RuntimeDefault or Unconfined.',
    });
  }
  let text: string;
  try {
    const root = await realpath(directory);
    const path = await realpath(join(root, name));
    if (!path.startsWith(`${root}${sep}`)) throw new Error('its path leaves the directory of profiles');
    const bytes = await readFile(path);
    if (bytes.length > maxProfileBytes) throw new Error(`it has more than ${maxProfileBytes} bytes`);
    text = bytes.toString('utf8');
  } catch (cause) {
    throw new PodvmError('notFound', `Cannot read the seccomp profile ${name}`, {
      cause,
      fix: 'Put the profile into the directory of profiles, or correct localhostProfile.',
    });
  }
  try {
    const profile: unknown = JSON.parse(text);
    if (typeof profile === 'object' && profile !== null) return profile;
    throw new Error('it is not a JSON object');
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot use the seccomp profile ${name}`, {
      cause,
      fix: 'Give a JSON object with defaultAction and syscalls, as other runtimes read it.',
    });
  }
}
