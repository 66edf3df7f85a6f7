/**
 * Fields of Kubernetes that the schemas do not accept, with the reason. `refuse`: the pod would not do what its author
 * wants; `ignore`: the field has no effect on one machine, or was written by a cluster; `warn`: its author should know.
 */
export type Verdict = { readonly kind: 'refuse' | 'warn'; readonly reason: string } | { readonly kind: 'ignore' };

const ignore: Verdict = { kind: 'ignore' };
const refuse = (reason: string): Verdict => ({ kind: 'refuse', reason });
const warn = (reason: string): Verdict => ({ kind: 'warn', reason });

const noHost = refuse('is not supported: a pod in a machine of its own has no namespaces of the host to share');
const noVolume = (instead: string) => refuse(`is not supported yet; use ${instead}`);
const noSource = refuse('is not supported: a volume begins empty');
const noChoice = refuse('is not supported: a volume has the name of its claim');
const noEffect = warn('has no effect: pods are replaced one after another, each when the one before runs');
const noJobRule = refuse('is not supported; use backoffLimit');
const noScheduler = warn('has no effect: there is no scheduler, the pod runs on this node');
const noApiServer = warn('is skipped: it needs an API server, and podvm has none');
const plainVolumes = 'persistentVolumeClaim, emptyDir, hostPath, configMap, secret, downwardAPI, projected or image';

/**
 * By path; `[]` stands for every index, and `containers` for init containers too. Paths in a template are those of its pod or
 * claim.
 */
const fields: Readonly<Record<string, Verdict>> = {
  // Of a template, such as those of a StatefulSet's claims.
  apiVersion: ignore,
  kind: ignore,
  status: ignore,
  'metadata.creationTimestamp': ignore,
  'metadata.deletionTimestamp': ignore,
  'metadata.deletionGracePeriodSeconds': ignore,
  'metadata.finalizers': ignore,
  'metadata.generation': ignore,
  'metadata.managedFields': ignore,
  'metadata.ownerReferences': ignore,
  'metadata.resourceVersion': ignore,
  'metadata.selfLink': ignore,

  'spec.automountServiceAccountToken': ignore,
  'spec.enableServiceLinks': ignore,
  'spec.preemptionPolicy': ignore,
  'spec.priority': ignore,
  'spec.priorityClassName': ignore,
  'spec.schedulerName': ignore,
  'spec.serviceAccount': ignore,
  'spec.tolerations': ignore,
  'spec.overhead': ignore,
  'spec.securityContext.seLinuxOptions': warn('has no effect: the guest has no SELinux'),
  'spec.securityContext.seLinuxChangePolicy': ignore,
  'spec.securityContext.appArmorProfile': warn('has no effect: the guest has no AppArmor'),
  'spec.securityContext.windowsOptions': refuse('is not supported: the guest is Linux'),
  'spec.affinity': noScheduler,
  'spec.nodeSelector': noScheduler,
  'spec.topologySpreadConstraints': noScheduler,
  'spec.schedulingGates': noScheduler,
  'spec.readinessGates': warn('has no effect: there is no controller that could set conditions'),
  'spec.runtimeClassName': warn('has no effect: every pod runs in a microVM'),
  'spec.hostNetwork': noHost,
  'spec.hostPID': noHost,
  'spec.hostIPC': noHost,
  'spec.hostnameOverride': refuse('is not supported; use hostname'),
  'spec.ephemeralContainers': warn('is skipped; use `podvm exec`'),
  'spec.resourceClaims': refuse('is not supported: there are no devices to claim'),

  'spec.minReadySeconds': noEffect,
  'spec.paused': refuse('is not supported: podvm holds no roll'),
  'spec.persistentVolumeClaimRetentionPolicy': warn('has no effect: volumes stay until `podvm volume rm`'),
  'spec.podManagementPolicy': ignore,
  'spec.progressDeadlineSeconds': noEffect,
  'spec.revisionHistoryLimit': ignore,
  'spec.strategy.rollingUpdate': noEffect,
  'spec.updateStrategy.rollingUpdate': noEffect,
  'spec.backoffLimitPerIndex': noJobRule,
  'spec.manualSelector': ignore,
  'spec.maxFailedIndexes': noJobRule,
  'spec.podFailurePolicy': noJobRule,
  'spec.podReplacementPolicy': ignore,
  'spec.managedBy': refuse('is not supported: podvm manages the Job'),
  'spec.successPolicy': noJobRule,
  'spec.suspend': refuse('is not supported: a Job begins at once'),
  'spec.ttlSecondsAfterFinished': warn('has no effect: `podvm rm` and `podvm system prune` remove ended pods'),
  'spec.allocateLoadBalancerNodePorts': ignore,
  'spec.clusterIPs': ignore,
  'spec.externalIPs': warn('has no effect: ports of the type NodePort are on all addresses of the node'),
  'spec.externalTrafficPolicy': ignore,
  'spec.healthCheckNodePort': ignore,
  'spec.internalTrafficPolicy': ignore,
  'spec.ipFamilies': ignore,
  'spec.ipFamilyPolicy': ignore,
  'spec.loadBalancerClass': ignore,
  'spec.loadBalancerIP': ignore,
  'spec.loadBalancerSourceRanges': refuse('is not supported: every address reaches the port'),
  'spec.sessionAffinity': warn('has no effect: each connection leads to any pod that is ready'),
  'spec.sessionAffinityConfig': ignore,
  'spec.trafficDistribution': ignore,

  'spec.resources.limits': warn('has no effect: a volume has the size that its claim requests'),
  'spec.dataSource': noSource,
  'spec.dataSourceRef': noSource,
  'spec.selector': noChoice,
  'spec.storageClassName': warn('has no effect: the volume is a disk of this node'),
  'spec.volumeAttributesClassName': warn('has no effect: the volume is a disk of this node'),
  'spec.volumeName': noChoice,

  'spec.containers[].resizePolicy': ignore,
  'spec.containers[].restartPolicy': refuse('is supported for init containers only, where Always makes a sidecar'),
  'spec.containers[].restartPolicyRules': refuse('is not supported'),
  'spec.containers[].resources.claims': refuse('is not supported: there are no devices to claim'),
  'spec.containers[].env[].valueFrom.fileKeyRef': refuse('is not supported; use configMapKeyRef or secretKeyRef'),
  'spec.containers[].lifecycle.stopSignal': refuse("is not supported; the image's StopSignal is used"),
  'spec.containers[].lifecycle.preStop.tcpSocket': refuse('is not supported: Kubernetes has withdrawn it'),
  'spec.containers[].lifecycle.postStart.tcpSocket': refuse('is not supported: Kubernetes has withdrawn it'),
  'spec.containers[].readinessProbe.terminationGracePeriodSeconds': refuse('must not be set on a readiness probe'),
  'spec.containers[].securityContext.seLinuxOptions': warn('has no effect: the guest has no SELinux'),
  'spec.containers[].securityContext.appArmorProfile': warn('has no effect: the guest has no AppArmor'),
  'spec.containers[].securityContext.windowsOptions': refuse('is not supported: the guest is Linux'),
  'spec.volumes[].projected.sources[].serviceAccountToken': noApiServer,
  'spec.volumes[].projected.sources[].clusterTrustBundle': noApiServer,
  'spec.volumes[].projected.sources[].podCertificate': noApiServer,
};

const volumeSources = [
  'nfs',
  'csi',
  'ephemeral',
  'iscsi',
  'local',
  'fc',
  'flexVolume',
  'flocker',
  'gitRepo',
  'glusterfs',
  'cephfs',
  'cinder',
  'rbd',
  'quobyte',
  'scaleIO',
  'storageos',
  'portworxVolume',
  'photonPersistentDisk',
  'vsphereVolume',
  'awsElasticBlockStore',
  'azureDisk',
  'azureFile',
  'gcePersistentDisk',
];

/** The verdict on a field that a schema does not have; undefined when Kubernetes has no such field either. */
export function verdictOn(path: readonly (string | number)[], value: unknown): Verdict | undefined {
  const pattern = path
    .map((step) => (typeof step === 'number' ? '[]' : `.${step}`))
    .join('')
    .slice(1)
    .replace(/^spec\.jobTemplate\./, '')
    .replace(/^spec\.(template|volumeClaimTemplates\[\])\./, '')
    .replace('spec.initContainers[]', 'spec.containers[]');
  const source = /^spec\.volumes\[\]\.([A-Za-z]+)$/.exec(pattern)?.[1];
  if (source !== undefined && volumeSources.includes(source)) return value === null ? ignore : noVolume(plainVolumes);
  const verdict = Object.hasOwn(fields, pattern) ? fields[pattern] : verdictOnResource(pattern);
  // An explicit default has no effect.
  return verdict !== undefined && isDefault(pattern, value) ? ignore : verdict;
}

/** Resources of devices (`nvidia.com/gpu`) and huge pages. Others that have no domain are misspelt. */
function verdictOnResource(pattern: string): Verdict | undefined {
  const [, name = ''] = /^spec\.(?:containers\[\]\.)?resources\.(?:limits|requests)\.(.+)$/.exec(pattern) ?? [];
  if (name.startsWith('hugepages-')) return refuse('is not supported: the guest has no huge pages');
  return name.includes('/') ? refuse('is not supported: a machine has no devices of the host') : undefined;
}

const defaults: Readonly<Record<string, unknown>> = { 'spec.sessionAffinity': 'None' };
/** Fields whose 0 means something else than their absence. */
const countedZeros = ['spec.backoffLimitPerIndex', 'spec.maxFailedIndexes', 'spec.ttlSecondsAfterFinished'];

/** Whether the value is what Kubernetes means without the field, such as `false` or an empty list. */
function isDefault(pattern: string, value: unknown): boolean {
  if (value === 0 && countedZeros.includes(pattern)) return false;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length === 0;
  const unset: readonly unknown[] = [null, false, 0, '0', '', defaults[pattern]];
  return unset.includes(value);
}
