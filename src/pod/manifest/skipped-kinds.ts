/** Reasons for skipping objects of other kinds. The rest of their file is not affected. */
const reasons: readonly (readonly [RegExp, string])[] = [
  [/^ReplicationController$/, 'it needs a controller of a cluster; write it as a Deployment'],
  [/^PodTemplate$/, 'only a controller uses it; write it as a Pod'],
  [/^PersistentVolume$/, 'it needs storage that a cluster provides; use a PersistentVolumeClaim'],
  [/^(StorageClass|CSIDriver|CSINode|VolumeAttachment|VolumeSnapshot.*)$/, 'it needs storage that a cluster provides'],
  [/^(Endpoints|EndpointSlice)$/, "it needs a cluster's network"],
  [/^(Ingress|IngressClass|Gateway|GatewayClass|HTTPRoute|GRPCRoute)$/, "it needs a cluster's network"],
  [/^NetworkPolicy$/, 'nothing here enforces it'],
  [
    /^(ServiceAccount|Role|RoleBinding|ClusterRole|ClusterRoleBinding)$/,
    'it needs an API server, which podvm does not have',
  ],
  [/^(HorizontalPodAutoscaler|PodDisruptionBudget)$/, 'it needs a controller of a cluster'],
  [/^(LimitRange|ResourceQuota|PriorityClass|RuntimeClass|Node|Event)$/, 'it only applies to a cluster'],
  [/^Namespace$/, 'a pod may name any namespace'],
  [/^Kustomization$/, 'it only names other files; pass what `kubectl kustomize DIR` prints'],
];

/** Returns the reason as one clause. */
export function whySkipped(kind: string): string {
  return reasons.find(([pattern]) => pattern.test(kind))?.[1] ?? 'podvm does not know this kind';
}

/** Kinds of the core API (`apiVersion: v1`) besides those that run. Other kinds of it are mistakes. */
const coreKinds: ReadonlySet<string> = new Set([
  'Binding',
  'ComponentStatus',
  'Endpoints',
  'Event',
  'LimitRange',
  'Namespace',
  'Node',
  'PersistentVolume',
  'PodTemplate',
  'ReplicationController',
  'ResourceQuota',
  'ServiceAccount',
]);

export function isCoreKind(kind: string): boolean {
  return coreKinds.has(kind.replace(/List$/, ''));
}
