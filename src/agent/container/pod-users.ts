import { PodvmError } from '#base/errors.ts';
import type { IdMapping, UserNamespace } from '#wire/pod-params.ts';
import { bringLoopbackUp } from '../interfaces/loopback.ts';
import { keepOwnRoutes } from '../interfaces/own-routes.ts';
import { codeOf, type Engine } from '#engine/engine.ts';
import type { ResolvedUser } from './users.ts';

type Parts = Pick<
  Engine,
  | 'spawnPause'
  | 'kill'
  | 'writeExisting'
  | 'writeExistingAs'
  | 'enterNamespaces'
  | 'list'
  | 'status'
  | 'changeOwner'
  | 'openNetlink'
  | 'interfaceIndex'
  | 'read'
  | 'write'
  | 'close'
>;

const killSignal = 9;

/**
 * The users of a pod with a user namespace. An unprivileged process holds their namespace, and with it those of
 * network, IPC and host name, which the pod's root needs to bind port 80, ping, mount /sys, or change `net.*`. The
 * agent moves into these three with the NIC and stays there: everything that it later configures, dials and starts
 * belongs to the pod.
 */
export class PodUsers {
  /** Pid of the process that holds the namespaces. */
  readonly pid: number;
  readonly #parts: Parts;
  readonly #given: UserNamespace;

  /** Errors: `invalid` for maps that the kernel refuses. A failure leaves nothing running. */
  constructor(parts: Parts, nic: { moveTo(pid: number): void }, given: UserNamespace, sharesPids: boolean) {
    this.#parts = parts;
    this.#given = given;
    this.pid = spawnHolder(parts, given, sharesPids);
    try {
      nic.moveTo(this.pid);
      parts.enterNamespaces(this.pid);
      keepOwnRoutes(parts); // the boot has done so in another namespace only
      bringLoopbackUp(parts);
      this.own('/dev/shm');
    } catch (error) {
      parts.kill(this.pid, killSignal);
      throw error;
    }
  }

  /** The part of a container's OCI configuration that makes it join the namespace. */
  get oci(): { uidMappings: object[]; gidMappings: object[]; namespace: { type: string; path: string } } {
    const ociOf = ({ containerId, hostId, size }: IdMapping) => ({ containerID: containerId, hostID: hostId, size });
    return {
      uidMappings: this.#given.uids.map(ociOf),
      gidMappings: this.#given.gids.map(ociOf),
      namespace: { type: 'user', path: `/proc/${this.pid}/ns/user` },
    };
  }

  /** Gives a file of the agent to the pod's root. */
  own(path: string): void {
    this.#parts.changeOwner(path, idInGuest(this.#given.uids, 0) ?? 0, idInGuest(this.#given.gids, 0) ?? 0);
  }

  hasGroup(gid: number): boolean {
    return idInGuest(this.#given.gids, gid) !== undefined;
  }

  /** Errors: `failedPrecondition` for a user or group outside of the maps, for which the kernel only returns EINVAL. */
  check({ uid, gid, additionalGids }: ResolvedUser): void {
    const refuse = (what: string, id: number) =>
      new PodvmError(
        'failedPrecondition',
        `Cannot run container: ${what} ${id} is not in the pod's user namespace, which maps ` +
          this.#given[what === 'user' ? 'uids' : 'gids'].map(rangeOf).join(', '),
      );
    if (idInGuest(this.#given.uids, uid) === undefined) throw refuse('user', uid);
    const group = [gid, ...additionalGids].find((each) => !this.hasGroup(each));
    if (group !== undefined) throw refuse('group', group);
  }

  /** Writes as the namespace's owner when needed: only the owner may write sysctls of IPC. */
  writeSysctl(file: string, value: string): void {
    try {
      this.#parts.writeExisting(file, value);
    } catch (error) {
      if (codeOf(error) !== 'EACCES' && codeOf(error) !== 'EPERM') throw error;
      this.#parts.writeExistingAs(file, value, idInGuest(this.#given.uids, 0) ?? 0);
    }
  }
}

function spawnHolder(parts: Parts, { uids, gids }: UserNamespace, sharesPids: boolean): number {
  const mapOf = (mappings: readonly IdMapping[]) =>
    mappings.map(({ containerId, hostId, size }) => `${containerId} ${hostId} ${size}\n`).join('');
  try {
    return parts.spawnPause(sharesPids, mapOf(uids), mapOf(gids));
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot make the pod's user namespace: ${codeOf(cause)}`, { cause });
  }
}

function idInGuest(mappings: readonly IdMapping[], id: number): number | undefined {
  const mapping = mappings.find(({ containerId, size }) => id >= containerId && id < containerId + size);
  return mapping === undefined ? undefined : mapping.hostId + id - mapping.containerId;
}

const rangeOf = ({ containerId, size }: IdMapping): string => `${containerId} to ${containerId + size - 1}`;
