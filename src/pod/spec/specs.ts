import { totalmem } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import { createProcessRoom } from '#sandbox/container/process-size.ts';
import type {
  ContainerDevice,
  ContainerMount,
  ContainerSpec,
  MountSource,
  RegistryLogin,
  SandboxSpec,
} from '#sandbox/sandbox.ts';
import type { PodFacts } from './downward.ts';
import { environmentOf } from './environment.ts';
import { expand, expandPath } from './expand.ts';
import { pullPolicyOf } from './image-policy.ts';
import type { PodConfig } from '../pods.ts';
import { pullLogins } from './pull-secrets.ts';
import { oomScoreOf } from './qos.ts';
import { containerResources, podResources } from './resources.ts';
import type { PodContainer } from '../schema/container.ts';
import type { Pod } from '../schema/objects.ts';
import type { Volume } from '../schema/volume.ts';
import { containerSecurity, type LocalProfiles } from './security.ts';
import { serviceDns } from '../manifest/served-services.ts';
import { claimPath, claimsOf } from './claims.ts';
import { sandboxVolumes } from './volumes.ts';

/** Longest host name of Linux, without the final NUL. */
const maxHostnameChars = 64;

/** Converts the pod to a sandbox spec. Errors: `notFound` for a ConfigMap or Secret, `invalid`. */
export function sandboxSpecOf(pod: Pod, config: PodConfig, facts: PodFacts): SandboxSpec {
  const { metadata, spec } = pod;
  const { securityContext } = spec;
  const containers = [...spec.initContainers, ...spec.containers];
  const ports = containers.flatMap((container) => container.ports);
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    uid: facts.uid,
    ...(config.kept === undefined ? {} : { isKept: true, keptFor: 'podvm' }),
    labels: metadata.labels,
    annotations: withClaims(pod, config),
    ...hostNamesOf(pod),
    network: config.network,
    template: templateOf(metadata),
    images: [...new Set(containers.map(({ image }) => image))],
    hostPorts: ports.flatMap(({ hostPort, containerPort, protocol, hostIP }) =>
      hostPort === undefined
        ? []
        : [{ hostPort, containerPort, protocol, ...(hostIP === undefined ? {} : { hostIP }) }],
    ),
    sctp: ports.some(({ protocol }) => protocol === 'SCTP'),
    dns: dnsOf(pod, config),
    hostAliases: spec.hostAliases,
    sysctls: Object.fromEntries(securityContext.sysctls.map(({ name, value }) => [name, value])),
    sharePidNamespace: spec.shareProcessNamespace,
    ...(spec.hostUsers ? {} : { userNamespace: { uids: [podIds], gids: [podIds] } }),
    ...(securityContext.fsGroup === undefined ? {} : { fsGroup: securityContext.fsGroup }),
    volumes: sandboxVolumes(pod, config, facts),
    resources: { ...podResources(spec), oomScoreAdj: oomScoreOf(spec, totalmem()) },
  };
}

/** `ClusterFirst` means the server for names of Services, if there is one. */
function dnsOf({ metadata, spec }: Pod, { network, nameserver }: PodConfig): SandboxSpec['dns'] {
  const { dnsConfig, dnsPolicy } = spec;
  const { nameservers, searches } = dnsConfig;
  const options = dnsConfig.options.map(({ name, value }) => (value === undefined ? name : `${name}:${value}`));
  const isServed = dnsPolicy === 'ClusterFirst' && network === 'cni' && nameserver !== undefined;
  if (!isServed) return { policy: dnsPolicy, nameservers, searches, options };
  const served = serviceDns(metadata.namespace, nameserver);
  return {
    policy: 'None',
    nameservers: [...served.nameservers, ...nameservers],
    searches: [...served.searches, ...searches],
    options: [...served.options, ...options],
  };
}

/** Annotations of the sandbox: the volumes of claims are disks that its machine mounts. */
function withClaims({ metadata, spec }: Pod, config: PodConfig): Pod['metadata']['annotations'] {
  const paths = claimsOf(spec).map((claim) => claimPath(metadata.namespace, claim, config));
  const { name } = podAnnotations.blockVolumes;
  const given = metadata.annotations[name];
  return paths.length === 0
    ? metadata.annotations
    : { ...metadata.annotations, [name]: [...(given === undefined ? [] : [given]), ...paths].join(',') };
}

/** Id range of a pod with `hostUsers: false`. Any range is suitable: the machine has no other pod. */
const podIds = { containerId: 0, hostId: 65_536, size: 65_536 };

function templateOf({ namespace, name, annotations }: Pod['metadata']): SandboxSpec['template'] {
  const { name: annotation, words } = podAnnotations.template;
  const value = annotations[annotation] ?? words[0];
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new PodvmError(
    'invalid',
    `Cannot run ${namespace}/${name}: annotation ${annotation} must be one of ${words.join(', ')}, got ${JSON.stringify(value)}`,
    { fix: `Set ${annotation} to one of these, or leave it out.` },
  );
}

/**
 * Returns `hostname`, or the pod's name truncated to a DNS label; with its domain for `setHostnameAsFQDN`. A pod with a
 * `subdomain` has its full name in /etc/hosts in any case, as kubelets write it for `hostname -f`.
 */
function hostNamesOf({ metadata, spec }: Pod): Pick<SandboxSpec, 'hostname' | 'names'> {
  const short = spec.hostname ?? metadata.name.slice(0, 63).replace(/[-.]+$/, '');
  if (spec.subdomain === undefined) return { hostname: short };
  const full = `${short}.${spec.subdomain}.${metadata.namespace}.svc.cluster.local`;
  if (spec.setHostnameAsFQDN && full.length > maxHostnameChars) {
    throw new PodvmError(
      'invalid',
      `Cannot set the hostname of ${metadata.namespace}/${metadata.name}: it must have at most ${maxHostnameChars} characters, got ${full}`,
      { fix: 'Set a shorter hostname or subdomain, or leave out setHostnameAsFQDN.' },
    );
  }
  return { hostname: spec.setHostnameAsFQDN ? full : short, names: [full, short] };
}

/**
 * Makes the spec of one attempt at a container. Errors: `notFound` for a ConfigMap, Secret or key of its environment.
 */
export function containerSpecOf(
  pod: Pod,
  container: PodContainer,
  attempt: number,
  config: PodConfig,
  facts: PodFacts,
  profiles: LocalProfiles,
): ContainerSpec {
  const variables = environmentOf(pod, container, config, facts);
  const logins = pullLogins(pod, config);
  const { command, args, workingDir } = container;
  return {
    name: container.name,
    attempt,
    image: container.image,
    imagePullPolicy: pullPolicyOf(container.image, container.imagePullPolicy),
    ...(logins.length === 0 ? {} : { pullLogins: logins }),
    ...(command === undefined ? {} : { command: wordsOf(container, 'command', command, variables) }),
    ...(args === undefined ? {} : { args: wordsOf(container, 'args', args, variables) }),
    ...(workingDir === undefined ? {} : { workingDir }),
    env: [...variables].map(([name, value]) => ({ name, value })),
    mounts: container.volumeMounts.map((mount) => mountOf(pod, container, mount, { variables, logins, config })),
    ...(container.volumeDevices.length === 0 ? {} : { devices: devicesOf(pod, container) }),
    security: containerSecurity(pod.spec, container, profiles),
    resources: containerResources(container),
    tty: container.tty,
    stdin: container.stdin,
    terminationMessagePath: container.terminationMessagePath,
  };
}

/** Expands command or args. Checks the kernel's limits while expanding, since variables can multiply the length. */
function wordsOf(
  { name }: PodContainer,
  field: 'command' | 'args',
  words: readonly string[],
  variables: ReadonlyMap<string, string>,
): string[] {
  const room = createProcessRoom(`container ${name}`);
  return words.map((word, at) => {
    const text = expand(`${field}[${at}] of container ${name}`, word, (variable) => variables.get(variable));
    room.take(`${field}[${at}]`, text);
    return text;
  });
}

function devicesOf(pod: Pod, { volumeDevices }: PodContainer): ContainerDevice[] {
  return volumeDevices.flatMap(({ name, devicePath }) => {
    const hostPath = pod.spec.volumes.find((volume) => volume.name === name)?.hostPath?.path;
    return hostPath === undefined ? [] : [{ hostPath, devicePath, readOnly: false }]; // the manifest's check has verified all
  });
}

const maxPathChars = 4096;

function mountOf(
  pod: Pod,
  { name }: PodContainer,
  mount: PodContainer['volumeMounts'][number],
  {
    variables,
    logins,
    config,
  }: {
    readonly variables: ReadonlyMap<string, string>;
    readonly logins: readonly RegistryLogin[];
    readonly config: PodConfig;
  },
): ContainerMount {
  const { subPathExpr } = mount;
  const what = `the subPathExpr at ${mount.mountPath} of container ${name}`;
  const subPath =
    subPathExpr === undefined ? mount.subPath : expandPath(what, subPathExpr, (variable) => variables.get(variable));
  if (subPath !== undefined && !isPathInside(subPath)) {
    throw new PodvmError(
      'invalid',
      `Cannot expand ${what}: the result must be a relative path without ".." and of at most ${maxPathChars} characters, ` +
        `got ${printable(subPath, 200)}`,
      { fix: 'Correct the values of the variables that it names.' },
    );
  }
  const volume = pod.spec.volumes.find((it) => it.name === mount.name);
  const claim = volume?.persistentVolumeClaim;
  const rest = { mountPath: mount.mountPath, ...(subPath === undefined ? {} : { subPath }) };
  if (volume?.hostPath !== undefined) {
    const propagation = mount.mountPropagation === 'HostToContainer' ? 'hostToContainer' : 'private';
    return {
      ...rest,
      source: { kind: 'host', path: volume.hostPath.path, propagation },
      readOnly: mount.readOnly,
      ...(mount.recursiveReadOnly === undefined ? {} : { recursiveReadOnly: mount.recursiveReadOnly !== 'Disabled' }),
    };
  }
  if (claim !== undefined) {
    const path = claimPath(pod.metadata.namespace, claim.claimName, config);
    return {
      ...rest,
      source: { kind: 'host', path, propagation: 'private', fillsDisk: true },
      readOnly: mount.readOnly || claim.readOnly,
    };
  }
  // Kubernetes mounts volumes with data from elsewhere read-only in any case.
  return {
    ...rest,
    source: sourceOf(mount.name, volume?.image, logins),
    readOnly: mount.readOnly || volume?.emptyDir === undefined,
  };
}

const isPathInside = (path: string): boolean =>
  path.length <= maxPathChars && !path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..');

function sourceOf(name: string, image: Volume['image'], logins: readonly RegistryLogin[]): MountSource {
  if (image === undefined) return { kind: 'volume', name };
  const { reference } = image;
  const pullPolicy = pullPolicyOf(reference, image.pullPolicy);
  return { kind: 'image', image: reference, pullPolicy, ...(logins.length === 0 ? {} : { pullLogins: logins }) };
}
