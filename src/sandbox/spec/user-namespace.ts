import { PodvmError } from '#base/errors.ts';

/** A range of ids: `containerId` and those after it are `hostId` and those after it in the pod's machine. */
export interface IdMapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

/** The user namespace of a pod: its root has all rights in the pod, and none in the guest. */
export interface UserNamespace {
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
}

/** The kernel's own limit (user_namespaces(7)). */
const maxMappings = 340;
/** One more than the largest id; the id with all bits set is invalid. */
const endOfIds = 0xffff_ffff;

/** Errors: `invalid` for what the kernel would refuse without a reason, and for a pod without a root. */
export function checkUserNamespace(what: string, { uids, gids }: UserNamespace): void {
  for (const [name, mappings] of Object.entries({ uids, gids })) {
    const problem = problemOf(mappings);
    if (problem === undefined) continue;
    throw new PodvmError('invalid', `Cannot run ${what}: the ${name} of its user namespace ${problem}`, {
      fix: 'Map a run of ids that begins with 0, such as 0 to 65536 for 65536 ids.',
    });
  }
}

function problemOf(mappings: readonly IdMapping[]): string | undefined {
  if (mappings.length === 0) return 'have no mapping';
  if (mappings.length > maxMappings) return `have ${mappings.length} mappings, and ${maxMappings} are possible`;
  for (const { containerId, hostId, size } of mappings) {
    if (size < 1) return 'have a mapping of length 0';
    if (containerId + size > endOfIds || hostId + size > endOfIds)
      return `have a mapping of length ${size} that leads past the last id`;
  }
  for (const side of ['containerId', 'hostId'] as const) {
    const sorted = mappings.toSorted((a, b) => a[side] - b[side]);
    const twice = sorted.find((mapping, at) => {
      const before = sorted[at - 1];
      return before !== undefined && before[side] + before.size > mapping[side];
    });
    if (twice !== undefined) return `map the ${side === 'hostId' ? 'host' : 'container'} id ${twice[side]} twice`;
  }
  return mappings.some(({ containerId }) => containerId === 0) ? undefined : 'leave out the container id 0';
}
