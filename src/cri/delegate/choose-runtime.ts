import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { isHandler } from '../handlers.ts';
import { NamespaceMode, type PodSandboxConfig } from '../schema/api_pb.ts';

/** Runtime of a pod: podvm, in a machine, or the delegate. */
export type Runtime = 'podvm' | 'delegate';

const everyNamespace = '*';

/**
 * Chooses the runtime of a pod. The delegate gets the pods of `namespaces` that name a handler which is not ours. Of
 * those without a handler, it gets pods that request a namespace of the host, and privileged ones: mounts that
 * propagate to the host, and devices of the host, are for privileged containers, and a runtime learns of these only
 * later. Errors: `denied` for a handler that is not ours in another namespace.
 */
export function chooseRuntime(
  config: PodSandboxConfig | undefined,
  runtimeHandler: string,
  namespaces: readonly string[],
): Runtime {
  const namespace = config?.metadata?.namespace ?? '';
  const isAllowed = namespaces.includes(everyNamespace) || namespaces.includes(namespace);
  if (isHandler(runtimeHandler)) {
    return runtimeHandler === '' && isAllowed && isForHost(config) ? 'delegate' : 'podvm';
  }
  if (isAllowed) return 'delegate';
  throw new PodvmError(
    'denied',
    `Cannot use runtime handler ${printable(JSON.stringify(runtimeHandler), 80)}: the delegate runs no pods of ` +
      `namespace ${printable(namespace, 80)}`,
    {
      fix: 'Add the namespace to delegateNamespaces in the settings of podvm, or run the pod without a runtime class.',
    },
  );
}

function isForHost(config: PodSandboxConfig | undefined): boolean {
  const security = config?.linux?.securityContext;
  const { network, pid, ipc } = security?.namespaceOptions ?? {};
  return security?.privileged === true || [network, pid, ipc].includes(NamespaceMode.NODE);
}
