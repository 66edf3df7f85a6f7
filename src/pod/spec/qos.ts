import { parseQuantity } from '#base/quantity.ts';
import type { ResourceSettings } from '../schema/container.ts';
import type { PodSpec } from '../schema/pod-spec.ts';
import { podResources } from './resources.ts';

/** Kubernetes' QoS class of a pod: pkg/apis/core/v1/helper/qos, ComputePodQOS. */
export type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort';

export function qosClassOf(spec: PodSpec): QosClass {
  const all =
    spec.resources === undefined
      ? [...spec.initContainers, ...spec.containers].map(({ resources }) => resources)
      : [spec.resources];
  if (all.every((settings) => !asks(settings))) return 'BestEffort';
  return all.every(isGuaranteed) ? 'Guaranteed' : 'Burstable';
}

const names = ['cpu', 'memory'] as const;
const amount = (text: string | undefined): bigint => parseQuantity(text ?? '')?.nano ?? 0n;

const asks = ({ limits, requests }: ResourceSettings): boolean =>
  names.some((name) => amount(limits[name]) > 0n || amount(requests[name]) > 0n);

function isGuaranteed({ limits, requests }: ResourceSettings): boolean {
  return names.every((name) => {
    const limit = amount(limits[name]);
    return limit > 0n && (requests[name] === undefined || amount(requests[name]) === limit);
  });
}

/**
 * Computes the OOM score as kubelet's pkg/kubelet/qos/policy.go, GetContainerOOMScoreAdjust, for the whole pod: its
 * containers end with its machine.
 */
export function oomScoreOf(spec: PodSpec, nodeMemoryBytes: number): number {
  switch (qosClassOf(spec)) {
    case 'Guaranteed':
      return -997;
    case 'BestEffort':
      return 1000;
    case 'Burstable': {
      const { memoryRequestBytes = 0 } = podResources(spec);
      const score = 1000 - Math.floor((1000 * memoryRequestBytes) / nodeMemoryBytes);
      return Math.max(3, Math.min(999, score));
    }
  }
}
