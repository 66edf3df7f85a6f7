import type { SandboxState } from '#sandbox/sandbox.ts';
import type { KnownPod } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import {
  NamespaceMode,
  PodSandboxState,
  type PodSandboxSchema,
  type PodSandboxStatusSchema,
} from '../schema/api_pb.ts';
import { nanosecondsOf } from './int64.ts';

const states = {
  creating: PodSandboxState.SANDBOX_NOTREADY,
  ready: PodSandboxState.SANDBOX_READY,
  stopping: PodSandboxState.SANDBOX_NOTREADY,
  stopped: PodSandboxState.SANDBOX_NOTREADY,
  failed: PodSandboxState.SANDBOX_NOTREADY,
} as const satisfies Record<SandboxState, PodSandboxState>;

export const podStateOf = ({ sandbox }: KnownPod): PodSandboxState => states[sandbox.state];

/** Converts a pod. Lists are frequent, so only their fields are copied; a status is computed at each access. */
export function podOf({ sandbox, config, runtimeHandler }: KnownPod, { state, createdAt } = sandbox.status) {
  const { metadata, labels, annotations } = config;
  return {
    id: sandbox.id,
    ...(metadata === undefined ? {} : { metadata }),
    state: states[state],
    createdAt: nanosecondsOf(createdAt),
    labels,
    annotations,
    runtimeHandler,
  } satisfies Answer<typeof PodSandboxSchema>;
}

export function podStatusOf(pod: KnownPod) {
  const { status } = pod.sandbox;
  const [ip = '', ...others] = status.addresses;
  const isReady = status.state === 'ready';
  return {
    ...podOf(pod, status),
    // An ended sandbox has released its addresses.
    network: isReady ? { ip, additionalIps: others.map((each) => ({ ip: each })) } : { ip: '' },
    linux: {
      namespaces: { options: pod.config.linux?.securityContext?.namespaceOptions ?? { pid: NamespaceMode.POD } },
    },
  } satisfies Answer<typeof PodSandboxStatusSchema>;
}
