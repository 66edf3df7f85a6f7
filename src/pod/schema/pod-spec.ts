import * as v from 'valibot';
import { container, initContainer, resources } from './container.ts';
import * as s from './scalars.ts';
import { podSecurity } from './security.ts';
import { volume } from './volume.ts';

/** `spec` of a Pod; fields that have no meaning here, or not yet, are in `unsupported.ts`. */
const maxContainers = 64;

const dnsConfig = v.object({
  nameservers: v.optional(s.list(s.ipAddress, 3), []),
  searches: v.optional(
    s.list(v.pipe(s.string, v.maxLength(253), v.regex(/^[-.A-Za-z0-9_]+$/, 'must be a domain')), 32),
    [],
  ),
  options: v.optional(
    s.list(
      v.object({
        name: v.pipe(s.string, v.regex(/^[-a-z0-9_]+$/, 'must be a resolver option')),
        value: v.optional(v.pipe(s.string, v.regex(/^\S*$/, 'must not have spaces'))),
      }),
      32,
    ),
    [],
  ),
});

export const podSpec = v.pipe(
  v.object({
    initContainers: v.optional(s.list(initContainer, maxContainers), []),
    containers: v.pipe(s.list(container, maxContainers), v.minLength(1, 'must have at least one container')),
    volumes: v.optional(
      s.keyedList(volume, 256, (item) => item.name),
      [],
    ),
    restartPolicy: v.optional(s.picklist(['Always', 'OnFailure', 'Never']), 'Always'),
    terminationGracePeriodSeconds: v.optional(s.integer(0, s.int32Max), 30),
    activeDeadlineSeconds: v.optional(s.integer(1, s.int32Max)),
    dnsPolicy: v.optional(s.picklist(['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None']), 'ClusterFirst'),
    dnsConfig: v.optional(dnsConfig, {}),
    hostname: v.optional(s.dnsLabel),
    subdomain: v.optional(s.dnsLabel),
    setHostnameAsFQDN: v.optional(s.boolean, false),
    hostAliases: v.optional(
      s.list(v.object({ ip: s.ipAddress, hostnames: v.optional(s.list(s.dnsSubdomain, 256), []) }), 256),
      [],
    ),
    shareProcessNamespace: v.optional(s.boolean, false),
    hostUsers: v.optional(s.boolean, true),
    securityContext: v.optional(podSecurity, {}),
    serviceAccountName: v.optional(s.dnsSubdomain, 'default'),
    nodeName: v.optional(s.dnsSubdomain),
    os: v.optional(
      v.object({
        name: v.pipe(
          s.picklist(['linux', 'windows']),
          s.supported(
            (name) => name === 'linux',
            () => 'must be linux, got windows: the guest is Linux',
          ),
        ),
      }),
    ),
    imagePullSecrets: v.optional(s.list(v.object({ name: v.optional(s.string, '') }), 100), []),
    resources: v.optional(resources),
  }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    for (const message of contradictions(dataset.value)) addIssue({ message });
  }),
);
export type PodSpec = v.InferOutput<typeof podSpec>;

function contradictions(spec: {
  readonly initContainers: readonly v.InferOutput<typeof initContainer>[];
  readonly containers: readonly v.InferOutput<typeof container>[];
  readonly volumes: readonly { readonly name: string; readonly hostPath?: object | undefined }[];
  readonly dnsPolicy: string;
  readonly dnsConfig: v.InferOutput<typeof dnsConfig>;
}): string[] {
  const problems: string[] = [];
  const all = [...spec.initContainers, ...spec.containers];
  const volumes = new Set(spec.volumes.map((item) => item.name));
  const names = new Set<string>();
  const hostPorts = new Set<string>();
  for (const item of all) {
    if (names.has(item.name)) problems.push(`must not have two containers named ${JSON.stringify(item.name)}`);
    names.add(item.name);
    for (const mount of item.volumeMounts) {
      if (volumes.has(mount.name)) continue;
      problems.push(`must have a volume ${JSON.stringify(mount.name)}, which container ${item.name} mounts`);
    }
    for (const { name } of item.volumeDevices) {
      if (spec.volumes.some((volume) => volume.name === name && volume.hostPath !== undefined)) continue;
      problems.push(
        `must have a hostPath volume ${JSON.stringify(name)}, which container ${item.name} has as a device`,
      );
    }
    for (const port of item.ports) {
      if (port.hostPort === undefined) continue;
      const key = `${port.protocol} ${port.hostIP ?? ''} ${port.hostPort}`;
      if (hostPorts.has(key)) problems.push(`must not use the hostPort ${port.hostPort} twice`);
      hostPorts.add(key);
    }
    for (const name of unknownProbePorts(item)) {
      problems.push(`must have a port named ${JSON.stringify(name)} in container ${item.name}, which its probe uses`);
    }
  }
  if (spec.dnsPolicy === 'None' && spec.dnsConfig.nameservers.length === 0) {
    problems.push('must have a nameserver in dnsConfig when dnsPolicy is None');
  }
  return problems;
}

function unknownProbePorts(item: v.InferOutput<typeof container>): string[] {
  const names = new Set(item.ports.map((port) => port.name));
  const actions = [item.startupProbe, item.livenessProbe, item.readinessProbe].map(
    (it) => it?.httpGet ?? it?.tcpSocket,
  );
  const hooks = [item.lifecycle.postStart?.httpGet, item.lifecycle.preStop?.httpGet];
  return [...actions, ...hooks].flatMap((it) => (typeof it?.port === 'string' && !names.has(it.port) ? [it.port] : []));
}
