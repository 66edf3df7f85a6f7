import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { hostNameOf } from '#sandbox/spec/host-name.ts';
import type { HostPort, SandboxSpec } from '#sandbox/sandbox.ts';
import { cgroupParentOf, oomScoreOf } from '#sandbox/spec/cgroup-parent.ts';
import { templateOfHandler } from '../handlers.ts';
import {
  type LinuxSandboxSecurityContext,
  NamespaceMode,
  type PodSandboxConfig,
  type PodSandboxMetadata,
  type PortMapping,
  Protocol,
} from '../schema/api_pb.ts';
import { refuseHostNamespaces } from './host-namespaces.ts';
import { podResourcesOf } from './resources.ts';
import { userNamespaceOf } from './user-namespace.ts';

/** Converts a CRI sandbox config. Errors: `invalid`, `unsupported`. */
export function sandboxSpecOf(config: PodSandboxConfig, runtimeHandler: string): SandboxSpec {
  const metadata = metadataOf(config);
  const { name, namespace, uid, attempt } = metadata;
  const { linux, dnsConfig } = config;
  refuseWhatIsMissing(metadata, linux?.securityContext);
  const namespaces = linux?.securityContext?.namespaceOptions;
  const cgroupParent = cgroupParentOf(`pod sandbox ${printable(name)}`, linux?.cgroupParent ?? '');
  const userNamespace = userNamespaceOf(`pod sandbox ${printable(name)}`, namespaces);
  return {
    namespace,
    name,
    uid,
    attempt,
    isKept: true,
    labels: config.labels,
    annotations: config.annotations,
    hostname: config.hostname === '' ? hostNameOf(name) : config.hostname,
    network: 'cni',
    template: templateOfHandler(runtimeHandler),
    images: [],
    hostPorts: config.portMappings.filter(({ hostPort }) => hostPort > 0).map(hostPortOf),
    sctp: config.portMappings.some(({ protocol }) => protocol === Protocol.SCTP), // kubelet also sends those without a host port
    // A config with servers has all of them: kubelet has merged the node's in.
    dns: {
      policy: dnsConfig === undefined ? 'Default' : 'None',
      nameservers: dnsConfig?.servers ?? [],
      searches: dnsConfig?.searches ?? [],
      options: dnsConfig?.options ?? [],
    },
    hostAliases: [],
    ...(cgroupParent === undefined ? {} : { cgroupParent }),
    sysctls: linux?.sysctls ?? {},
    sharePidNamespace: namespaces?.pid !== NamespaceMode.CONTAINER,
    ...(userNamespace === undefined ? {} : { userNamespace }),
    volumes: [],
    resources: { ...podResourcesOf(linux?.resources, linux?.overhead), ...oomScoreOf(linux?.cgroupParent) },
  };
}

const maxNameChars = 253;
const maxTableChars = 1024 * 1024;

function metadataOf(config: PodSandboxConfig): PodSandboxMetadata {
  const { metadata } = config;
  if (metadata === undefined) throw new PodvmError('invalid', 'Cannot run a pod sandbox: its config has no metadata');
  for (const key of ['name', 'namespace', 'uid'] as const) {
    const value = metadata[key];
    if (value !== '' && value.length <= maxNameChars && !/[\p{Cc}/]/u.test(value)) continue;
    throw new PodvmError(
      'invalid',
      `Cannot run a pod sandbox: its ${key} must have 1 to ${maxNameChars} characters and no slash or ` +
        `control character, got ${printable(JSON.stringify(value), 80)}`,
    );
  }
  checkTables(`pod sandbox ${printable(metadata.name)}`, config);
  return metadata;
}

/**
 * Checks the size of labels and annotations, which are kept as long as the sandbox and are part of every list. Errors:
 * `invalid`.
 */
export function checkTables(
  what: string,
  { labels, annotations }: Pick<PodSandboxConfig, 'labels' | 'annotations'>,
): void {
  let chars = 0;
  for (const [key, value] of [...Object.entries(labels), ...Object.entries(annotations)]) {
    chars += key.length + value.length;
  }
  if (chars <= maxTableChars) return;
  throw new PodvmError(
    'invalid',
    `Cannot create ${what}: its labels and annotations must have at most ${maxTableChars} characters, got ${chars}`,
    { fix: 'Put large values into a ConfigMap.' },
  );
}

function refuseWhatIsMissing({ name }: PodSandboxMetadata, security: LinuxSandboxSecurityContext | undefined): void {
  const options = security?.namespaceOptions;
  refuseHostNamespaces(`pod sandbox ${printable(name)}`, options);
  if (options?.pid === NamespaceMode.TARGET || options?.ipc === NamespaceMode.TARGET) {
    throw new PodvmError(
      'unsupported',
      `Cannot run pod sandbox ${printable(name)}: namespaces of a target container apply only to containers`,
      { fix: 'Use POD or CONTAINER.' },
    );
  }
}

const protocols = new Map<number, HostPort['protocol']>([
  [Protocol.TCP, 'TCP'],
  [Protocol.UDP, 'UDP'],
  [Protocol.SCTP, 'SCTP'],
]);

function hostPortOf({ protocol, containerPort, hostPort, hostIp }: PortMapping): HostPort {
  const word = protocols.get(protocol);
  const isPort = (port: number) => port >= 1 && port <= 65_535;
  if (word === undefined || !isPort(hostPort) || !isPort(containerPort)) {
    throw new PodvmError('invalid', `Cannot map port ${hostPort} to ${containerPort}: no such port or protocol`);
  }
  return { hostPort, containerPort, protocol: word, ...(hostIp === '' ? {} : { hostIP: hostIp }) };
}
