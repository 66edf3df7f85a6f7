import * as v from 'valibot';
import type { SandboxSpec } from '../sandbox.ts';

const number = v.pipe(v.number(), v.finite());
const strings = v.array(v.string());
const table = v.record(v.string(), v.string());

export const resourcesSchema = v.object({
  memoryLimitBytes: v.exactOptional(number),
  memoryRequestBytes: v.exactOptional(number),
  cpuLimitMillis: v.exactOptional(number),
  cpuRequestMillis: v.exactOptional(number),
  pidsLimit: v.exactOptional(number),
  ephemeralStorageBytes: v.exactOptional(number),
  oomScoreAdj: v.exactOptional(number),
});

const idMappings = v.array(v.object({ containerId: number, hostId: number, size: number }));

/** A sandbox's spec on disk, without the files of its volumes, which may be secret and which the guest has. */
export const sandboxSpecSchema = v.object({
  namespace: v.string(),
  name: v.string(),
  uid: v.string(),
  attempt: v.exactOptional(number),
  isKept: v.exactOptional(v.boolean()),
  keptFor: v.exactOptional(v.picklist(['cri', 'containerd', 'podvm'])),
  isSingle: v.exactOptional(v.boolean()),
  labels: table,
  annotations: table,
  hostname: v.string(),
  names: v.exactOptional(strings),
  network: v.picklist(['cni', 'given', 'none']),
  netns: v.exactOptional(v.string()),
  template: v.picklist(['on', 'namespace', 'off']),
  images: strings,
  hostPorts: v.array(
    v.object({
      hostPort: number,
      containerPort: number,
      protocol: v.picklist(['TCP', 'UDP', 'SCTP']),
      hostIP: v.exactOptional(v.string()),
    }),
  ),
  sctp: v.boolean(),
  dns: v.object({
    policy: v.picklist(['Default', 'ClusterFirst', 'ClusterFirstWithHostNet', 'None']),
    nameservers: strings,
    searches: strings,
    options: strings,
  }),
  hostAliases: v.array(v.object({ ip: v.string(), hostnames: strings })),
  cgroupParent: v.exactOptional(v.string()),
  sysctls: table,
  sharePidNamespace: v.boolean(),
  userNamespace: v.exactOptional(v.object({ uids: idMappings, gids: idMappings })),
  fsGroup: v.exactOptional(number),
  volumes: v.array(
    v.variant('kind', [
      v.object({ name: v.string(), kind: v.literal('scratch'), sizeLimitBytes: v.exactOptional(number) }),
      v.object({ name: v.string(), kind: v.literal('tmpfs'), sizeLimitBytes: v.exactOptional(number) }),
      v.object({ name: v.string(), kind: v.literal('push'), files: v.pipe(v.array(v.never()), v.readonly()) }),
    ]),
  ),
  resources: resourcesSchema,
});
export type RecordedSpec = v.InferOutput<typeof sandboxSpecSchema>;

/** Converts a spec for its record. */
export function recordedSpecOf(spec: SandboxSpec): RecordedSpec {
  const volumes = spec.volumes.map((volume) => (volume.kind === 'push' ? { ...volume, files: [] } : volume));
  return v.parse(sandboxSpecSchema, { ...spec, volumes });
}
