import type { ContainerState as State, ContainerStatus } from '#sandbox/sandbox.ts';
import type { KnownContainer } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import { type ContainerSchema, ContainerState, type ContainerStatusSchema } from '../schema/api_pb.ts';
import { nanosecondsOf } from './int64.ts';

const states = {
  creating: ContainerState.CONTAINER_CREATED,
  created: ContainerState.CONTAINER_CREATED,
  running: ContainerState.CONTAINER_RUNNING,
  exited: ContainerState.CONTAINER_EXITED,
} as const satisfies Record<State, ContainerState>;

/** Converts the state. Lists are frequent and a status is computed at each access, so it is read once. */
export function containerStateOf(
  { container, isEndKnown }: KnownContainer,
  { state, startedAt }: ContainerStatus = container.status,
): ContainerState {
  if (state !== 'exited' || isEndKnown) return states[state];
  return startedAt === undefined ? ContainerState.CONTAINER_CREATED : ContainerState.CONTAINER_RUNNING;
}

export function containerOf(known: KnownContainer) {
  const { status } = known.container;
  const { id, createdAt, imageId } = status;
  const { metadata, image, labels, annotations } = known.config;
  return {
    id,
    podSandboxId: known.pod.sandbox.id,
    ...(metadata === undefined ? {} : { metadata }),
    ...(image === undefined ? {} : { image }),
    imageRef: imageId,
    imageId,
    state: containerStateOf(known, status),
    createdAt: nanosecondsOf(createdAt),
    labels,
    annotations,
  } satisfies Answer<typeof ContainerSchema>;
}

export function containerStatusOf(known: KnownContainer) {
  const { status } = known.container;
  const { id, createdAt, startedAt, exit, imageId, logPath, user } = status;
  const { metadata, image, labels, annotations, mounts } = known.config;
  const state = containerStateOf(known, status);
  const hasEnded = exit !== undefined && state === ContainerState.CONTAINER_EXITED;
  return {
    id,
    ...(metadata === undefined ? {} : { metadata }),
    state,
    createdAt: nanosecondsOf(createdAt),
    startedAt: nanosecondsOf(startedAt),
    ...(hasEnded
      ? {
          finishedAt: nanosecondsOf(exit.finishedAt),
          exitCode: exit.exitCode,
          reason: reasonOf(exit.reason),
          // A termination message goes into its file; this field is for the runtime's own message.
          message: exit.why ?? '',
        }
      : {}),
    image: { image: image?.userSpecifiedImage || image?.image || '', annotations: image?.annotations ?? {} },
    imageRef: imageId,
    imageId,
    labels,
    annotations,
    mounts,
    logPath,
    ...(user === undefined ? {} : { user: userOf(user) }),
    ...(known.resources === undefined ? {} : { resources: { linux: known.resources } }),
  } satisfies Answer<typeof ContainerStatusSchema>;
}

/** Includes the first group among the supplemental ones, as the kernel and containerd do. */
function userOf({ uid, gid, groups }: NonNullable<ContainerStatus['user']>) {
  // An agent of an earlier build leaves the gid out.
  const all = [...new Set([gid, ...groups])];
  return { linux: { uid: BigInt(uid), gid: BigInt(gid), supplementalGroups: all.map(BigInt) } };
}

/** Maps the loss of a machine, which Kubernetes does not know, to a failure. */
const reasonOf = (reason: string): string => (reason === 'SandboxFailed' ? 'Error' : reason);
