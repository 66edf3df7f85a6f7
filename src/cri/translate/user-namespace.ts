import { PodvmError } from '#base/errors.ts';
import type { UserNamespace } from '#sandbox/user-namespace.ts';
import { type IDMapping, type NamespaceOption, NamespaceMode } from '../schema/api_pb.ts';

/** Undefined: the users are the machine's. Errors: `invalid` for what CRI has no meaning for (`UserNamespace.mode`). */
export function userNamespaceOf(what: string, options: NamespaceOption | undefined): UserNamespace | undefined {
  const given = options?.usernsOptions;
  if (given === undefined) return undefined;
  const { mode, uids, gids } = given;
  if (mode === NamespaceMode.POD) return { uids: uids.map(mappingOf), gids: gids.map(mappingOf) };
  const refuse = (why: string) =>
    new PodvmError('invalid', `Cannot make ${what}: ${why}`, { fix: 'Use POD with mappings, or NODE without any.' });
  if (mode !== NamespaceMode.NODE) throw refuse(`a user namespace is the pod's or the node's, got mode ${mode}`);
  if (uids.length > 0 || gids.length > 0) throw refuse("ids are mapped for a pod that has the node's users");
  return undefined;
}

const mappingOf = ({ containerId, hostId, length }: IDMapping) => ({ containerId, hostId, size: length });

/** A container has its pod's users: one that asks for others is refused, one that asks for none gets them. */
export function checkUserNamespaceOf(
  what: string,
  container: NamespaceOption | undefined,
  pod: NamespaceOption | undefined,
): void {
  if (container?.usernsOptions === undefined) return;
  const [wanted, has] = [userNamespaceOf(what, container), userNamespaceOf(what, pod)];
  if (JSON.stringify(wanted) === JSON.stringify(has)) return;
  throw new PodvmError('invalid', `Cannot make ${what}: its user namespace is another than its pod's`);
}
