import { PodvmError } from '#base/errors.ts';
import { type NamespaceOption, NamespaceMode } from '../schema/api_pb.ts';

/** Namespaces of the host: the pod's field that requests each, and the reason and fix of the refusal. */
const hostNamespaces = {
  network: {
    field: 'hostNetwork',
    why: "the pod's machine has its own network",
    instead: 'Remove hostNetwork, and use hostPort to make the pod reachable at the address of the node',
  },
  pid: {
    field: 'hostPID',
    why: "the pod's machine has its own processes",
    instead: 'Remove hostPID, and use shareProcessNamespace to let containers see the processes of their pod',
  },
  ipc: {
    field: 'hostIPC',
    why: "the pod's machine has its own kernel",
    instead: 'Remove hostIPC: the containers of a pod share their IPC namespace',
  },
} as const;

/** Refuses the host's namespaces for a pod or a container (`what`). Errors: `unsupported`. */
export function refuseHostNamespaces(what: string, options: NamespaceOption | undefined): void {
  for (const kind of ['network', 'pid', 'ipc'] as const) {
    if (options?.[kind] !== NamespaceMode.NODE) continue;
    const { field, why, instead } = hostNamespaces[kind];
    throw new PodvmError('unsupported', `Cannot run ${what}: ${field} is not supported: ${why}`, {
      fix: `${instead}; or let the runtime of the setting delegate run the pod, in a namespace of delegateNamespaces and without a runtime class.`,
    });
  }
}
