import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { hostNameOf } from '#sandbox/spec/host-name.ts';
import { oomScoreOf } from '#sandbox/spec/cgroup-parent.ts';
import type { SandboxSpec } from '#sandbox/sandbox.ts';
import type { OciSpec } from '../bundle/oci-spec.ts';
import { podResourcesOf, resourcesOf } from './resources.ts';

/** Facts from which a pod's sandbox is made, besides its bundle's spec. */
export interface PodFacts {
  /** Id of the task. */
  readonly id: string;
  /** Containerd's namespace, which is that of a container without a pod. */
  readonly namespace: string;
  /** Counts the sandboxes of one pod. */
  readonly attempt: number;
  /** Text of the pod's resolv.conf; undefined: the node's. */
  readonly resolvConf: string | undefined;
  /** The pod's cgroup on the node, relative to the root of cgroups; undefined: podvm's own. */
  readonly cgroupParent: string | undefined;
}

const annotationOf = (spec: OciSpec, name: string) => spec.annotations?.[`io.kubernetes.cri.${name}`];

/** `single`: a container that is no part of a pod, such as that of `ctr run`. */
export type TaskKind = 'pod' | 'container' | 'single';

export function kindOfTask(spec: OciSpec): TaskKind {
  const type = annotationOf(spec, 'container-type');
  if (type === 'sandbox') return 'pod';
  return type === 'container' ? type : 'single';
}

export const sandboxIdOf = (spec: OciSpec): string => annotationOf(spec, 'sandbox-id') ?? '';

/**
 * Converts the spec of a pod's sandbox, whose process (`pause`) and root file system are not used, or that of a single
 * container into a sandbox for it alone. Errors: `failedPrecondition` for one that is to share namespaces of the host.
 */
export function sandboxSpecOf(spec: OciSpec, facts: PodFacts): SandboxSpec {
  const { id, attempt, resolvConf, cgroupParent } = facts;
  const isSingle = kindOfTask(spec) === 'single';
  const name = annotationOf(spec, 'sandbox-name') ?? id;
  refuseHostNamespaces(name, spec);
  const { sysctl, uidMappings } = spec.linux;
  const users = idMappingsOf(spec);
  return {
    namespace: annotationOf(spec, 'sandbox-namespace') ?? facts.namespace,
    name,
    uid: annotationOf(spec, 'sandbox-uid') ?? id,
    attempt,
    isKept: true,
    keptFor: 'containerd',
    ...(isSingle ? { isSingle } : {}),
    labels: {},
    annotations: ownAnnotationsOf(spec),
    hostname: spec.hostname === '' ? hostNameOf(name) : spec.hostname,
    ...networkOf(spec),
    template: templateOf(spec),
    images: [],
    hostPorts: [], // the port mappings of containerd's CNI chain
    sctp: false,
    dns: resolvConf === undefined ? nodeDns : dnsOf(resolvConf),
    hostAliases: [],
    sysctls: sysctl ?? {},
    // Each container's own spec shows whether it shares them; that of the pod does not.
    sharePidNamespace: true,
    ...((uidMappings ?? []).length === 0 ? {} : { userNamespace: users }),
    volumes: [],
    ...(cgroupParent === undefined ? {} : { cgroupParent }),
    resources: {
      ...(isSingle ? resourcesOf(spec.linux.resources) : podResourcesOf(spec.annotations ?? {})),
      ...oomScoreOf(cgroupParent),
    },
  };
}

const networkNamespaceOf = ({ linux }: OciSpec) => linux.namespaces?.find(({ type }) => type === 'network');

/** A network namespace without a path is a new one, which has nothing but loopback. */
function networkOf(spec: OciSpec): Pick<SandboxSpec, 'network' | 'netns'> {
  const path = networkNamespaceOf(spec)?.path ?? '';
  return path === '' ? { network: 'none' } : { network: 'given', netns: path };
}

function refuseHostNamespaces(name: string, spec: OciSpec): void {
  const isSingle = kindOfTask(spec) === 'single';
  const types = new Set(spec.linux.namespaces?.map(({ type }) => type));
  const network = networkNamespaceOf(spec);
  const shared = [
    ...(network === undefined || (network.path === '' && !isSingle) ? ['network'] : []),
    ...(['pid', 'ipc'] as const).filter((type) => !types.has(type)),
  ];
  if (shared.length === 0) return;
  throw new PodvmError(
    'failedPrecondition',
    `Cannot run ${isSingle ? 'container' : 'pod'} ${printable(name)} in a machine: it shares the host's namespaces: ${shared.join(', ')}`,
    {
      fix: isSingle
        ? "Run it with runc, or without the host's namespaces (`--net-host`)."
        : 'Run it with runc: leave its runtimeClassName out, or remove hostNetwork, hostPID and hostIPC.',
    },
  );
}

function idMappingsOf({ linux: { uidMappings, gidMappings } }: OciSpec) {
  const convert = (all: typeof uidMappings) =>
    (all ?? []).map(({ containerID, hostID, size }) => ({ containerId: containerID, hostId: hostID, size }));
  return { uids: convert(uidMappings), gids: convert(gidMappings) };
}

/** Annotations that podvm acts on; containerd passes those that its configuration names. */
function ownAnnotationsOf({ annotations }: OciSpec): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(annotations ?? {}).filter(([name]) => name.startsWith('podvm.dev/')));
}

function templateOf({ annotations }: OciSpec): SandboxSpec['template'] {
  const asked = annotations?.['podvm.dev/template'] ?? 'on';
  if (asked === 'on' || asked === 'namespace' || asked === 'off') return asked;
  throw new PodvmError(
    'invalid',
    `Cannot use the annotation podvm.dev/template: on, namespace or off, got ${printable(asked, 80)}`,
    { fix: 'Correct it, or leave it out.' },
  );
}

const nodeDns: SandboxSpec['dns'] = { policy: 'Default', nameservers: [], searches: [], options: [] };

/** The file is complete: containerd has merged the node's servers in where the pod wants them. */
function dnsOf(resolvConf: string): SandboxSpec['dns'] {
  const lines = resolvConf.split('\n').map((line) => line.trim().split(/\s+/));
  const words = (keyword: string) => lines.filter(([first]) => first === keyword).flatMap(([, ...rest]) => rest);
  return { policy: 'None', nameservers: words('nameserver'), searches: words('search'), options: words('options') };
}
