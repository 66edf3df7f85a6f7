import { PodvmError } from '#base/errors.ts';
import type { UserNamespace } from '#sandbox/spec/user-namespace.ts';
import { type IDMapping, type NamespaceOption, NamespaceMode } from '../schema/api_pb.ts';

/**
 * Returns undefined for the machine's users. Errors: `invalid` for modes that CRI does not define
 * (`UserNamespace.mode`).
 */
export function userNamespaceOf(what: string, options: NamespaceOption | undefined): UserNamespace | undefined {
  const given = options?.usernsOptions;
  if (given === undefined) return undefined;
  const { mode, uids, gids } = given;
  if (mode === NamespaceMode.POD) return { uids: uids.map(mappingOf), gids: gids.map(mappingOf) };
  const refuse = (why: string) =>
    new PodvmError('invalid', `Cannot make ${what}: ${why}`, { fix: 'Use POD with mappings, or NODE without any.' });
  if (mode !== NamespaceMode.NODE) throw refuse(`its user namespace must be POD or NODE, got mode ${mode}`);
  if (uids.length > 0 || gids.length > 0) throw refuse("ids must not be mapped with the node's users");
  return undefined;
}

const mappingOf = ({ containerId, hostId, length }: IDMapping) => ({ containerId, hostId, size: length });

/** Checks a container's user namespace. It must equal its pod's, or be absent. */
export function checkUserNamespaceOf(
  what: string,
  container: NamespaceOption | undefined,
  pod: NamespaceOption | undefined,
): void {
  if (container?.usernsOptions === undefined) return;
  const [wanted, has] = [userNamespaceOf(what, container), userNamespaceOf(what, pod)];
  if (JSON.stringify(wanted) === JSON.stringify(has)) return;
  throw new PodvmError('invalid', `Cannot make ${what}: its user namespace differs from its pod's`, {
    fix: 'Give the container the mappings of its pod, or none.',
  });
}
