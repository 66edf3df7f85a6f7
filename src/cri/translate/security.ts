import { readFile } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { ContainerSecurity, SeccompProfile } from '#sandbox/spec/container-security.ts';
import {
  type LinuxContainerSecurityContext,
  type SecurityProfile,
  SecurityProfile_ProfileType as ProfileType,
  SupplementalGroupsPolicy,
} from '../schema/api_pb.ts';
import { numberOf } from './int64.ts';

const userIds = [0, 0xffff_fffe] as const;

/**
 * Converts a container's security context for the guest. Errors: `invalid`; `unsupported` for features that the guest's
 * kernel or this version lacks; `notFound` for a missing seccomp profile.
 */
export async function securityOf(given: LinuxContainerSecurityContext | undefined): Promise<ContainerSecurity> {
  if (given === undefined) return plain;
  refuseWhatIsMissing(given);
  const { runAsUser, runAsGroup, runAsUsername, capabilities } = given;
  if (runAsGroup !== undefined && runAsUser === undefined && runAsUsername === '') {
    throw new PodvmError('invalid', 'Cannot use the security context: run_as_group needs a user', {
      fix: 'Set runAsUser as well.',
    });
  }
  return {
    ...plain,
    privileged: given.privileged,
    ...(runAsUser === undefined ? {} : { runAsUser: numberOf('run_as_user', runAsUser.value, userIds) }),
    ...(runAsGroup === undefined ? {} : { runAsGroup: numberOf('run_as_group', runAsGroup.value, userIds) }),
    ...(runAsUsername === '' ? {} : { runAsUserName: runAsUsername }),
    supplementalGroupsPolicy: given.supplementalGroupsPolicy === SupplementalGroupsPolicy.Strict ? 'strict' : 'merge',
    supplementalGroups: given.supplementalGroups.map((id) => numberOf('a supplemental group', id, userIds)),
    readOnlyRootFilesystem: given.readonlyRootfs,
    allowPrivilegeEscalation: !given.noNewPrivs,
    addCapabilities: capabilities?.addCapabilities ?? [],
    dropCapabilities: capabilities?.dropCapabilities ?? [],
    ambientCapabilities: capabilities?.addAmbientCapabilities ?? [],
    seccomp: given.privileged ? unconfined : await seccompOf(given),
    // protobuf does not distinguish empty from absent; containerd uses the defaults for both.
    ...(given.privileged || given.maskedPaths.length === 0 ? {} : { maskedPaths: given.maskedPaths }),
    ...(given.privileged || given.readonlyPaths.length === 0 ? {} : { readonlyPaths: given.readonlyPaths }),
  };
}

const unconfined: SeccompProfile = { kind: 'unconfined' };

/** Context of a request without one. It has no seccomp profile: kubelet sends its default explicitly. */
const plain: ContainerSecurity = {
  privileged: false,
  runAsNonRoot: false, // the kubelet checks it
  supplementalGroups: [],
  readOnlyRootFilesystem: false,
  allowPrivilegeEscalation: true,
  addCapabilities: [],
  dropCapabilities: [],
  seccomp: unconfined,
  procMount: 'Default',
};

function refuseWhatIsMissing(given: LinuxContainerSecurityContext): void {
  const { apparmor, apparmorProfile } = given;
  const wantsAppArmor =
    apparmor?.profileType === ProfileType.Localhost ||
    apparmorProfile.replace('unconfined', '').startsWith('localhost/');
  if (wantsAppArmor) {
    throw new PodvmError(
      'unsupported',
      "Cannot apply an AppArmor profile: the guest's kernel does not support AppArmor",
      { fix: 'Remove the profile, or set it to Unconfined.' },
    );
  }
}

async function seccompOf({ seccomp, seccompProfilePath }: LinuxContainerSecurityContext): Promise<SeccompProfile> {
  if (seccomp !== undefined) return await profileOf(seccomp);
  // The field that preceded v1's `seccomp`, used by old clients.
  if (seccompProfilePath === 'runtime/default' || seccompProfilePath === 'docker/default')
    return { kind: 'runtimeDefault' };
  if (seccompProfilePath.startsWith('localhost/'))
    return await localProfile(seccompProfilePath.slice('localhost/'.length));
  if (seccompProfilePath === '' || seccompProfilePath === 'unconfined') return unconfined;
  throw new PodvmError(
    'invalid',
    `Cannot use the seccomp profile ${JSON.stringify(seccompProfilePath)}: unknown kind`,
    { fix: 'Use runtime/default, unconfined, or localhost/ with a path.' },
  );
}

async function profileOf({ profileType, localhostRef }: SecurityProfile): Promise<SeccompProfile> {
  switch (profileType) {
    case ProfileType.RuntimeDefault:
      return { kind: 'runtimeDefault' };
    case ProfileType.Localhost:
      return await localProfile(localhostRef);
    case ProfileType.Unconfined:
      return unconfined;
    default:
      throw new PodvmError('invalid', `Cannot use a seccomp profile: unknown type, got ${profileType}`);
  }
}

const maxProfileBytes = 1024 * 1024;

/** Reads a profile from a file of this host for the guest. */
async function localProfile(path: string): Promise<SeccompProfile> {
  if (!isAbsolute(path)) {
    throw new PodvmError('invalid', `Cannot use the seccomp profile ${JSON.stringify(path)}: its path is not absolute`);
  }
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot use the seccomp profile ${path}: it cannot be read`, {
      cause,
      fix: 'Put the profile into the seccomp directory of the kubelet.',
    });
  });
  if (text.length > maxProfileBytes) {
    throw new PodvmError(
      'invalid',
      `Cannot use the seccomp profile ${path}: it must have at most ${maxProfileBytes} bytes`,
      { fix: 'Use a smaller profile.' },
    );
  }
  try {
    return { kind: 'localhost', profile: JSON.parse(text) };
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot use the seccomp profile ${path}: it is not JSON`, {
      cause,
      fix: 'Correct the file: a profile is a JSON object with defaultAction and syscalls.',
    });
  }
}
