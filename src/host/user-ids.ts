import { readFileSync } from 'node:fs';

/**
 * Users of the host that PodVM's own programs run as, where no person and no service has an id. Inside the namespaces of an
 * ordinary user (`src/daemon/rootless/`) these are some of that user's subordinate ids, of which there are 65,536; the
 * ids there are below 65,534, which the kernel shows for users that have none.
 */
const allIds = 2 ** 32 - 1;

export interface UserIdRange {
  readonly first: number;
  readonly count: number;
}

/** VMMs in the namespaces of an ordinary user. */
export const subordinateVmms: UserIdRange = { first: 60_000, count: 4096 };
/** Number of ids that such namespaces need: from 0 to those above. */
export const neededIds = 64_128;

/** Number of ids, from 0 on, that the map has (user_namespaces(7)): lines of `INSIDE OUTSIDE COUNT`. */
export function mappedIds(uidMap: string): number {
  const ranges = uidMap
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((numbers) => numbers.length === 3)
    .map(([inside = 0, , count = 0]) => ({ inside, count }))
    .toSorted((a, b) => a.inside - b.inside);
  let end = 0;
  for (const { inside, count } of ranges) if (inside <= end) end = Math.max(end, inside + count);
  return end;
}

let isWhole: boolean | undefined;

/** Whether this process may use any id. It may not in a user namespace. */
export function hasAllIds(): boolean {
  isWhole ??= mappedIds(readFileSync('/proc/self/uid_map', 'latin1')) >= allIds;
  return isWhole;
}

/** Returns the id of a program of PodVM: the usual one, or the other one if this process lacks most ids. */
export const userIdOf = (usual: number, subordinate: number): number => (hasAllIds() ? usual : subordinate);
