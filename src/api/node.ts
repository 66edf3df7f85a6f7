import * as v from 'valibot';

/** `GET /v1/node`: NodeDetails. */
export const nodeDetailsSchema = v.object({
  /** Number of machines in the pool. */
  waitingMachines: v.number(),
});
export type NodeDetails = v.InferOutput<typeof nodeDetailsSchema>;

/**
 * `GET /v1/overhead`: resources of the node that each running pod takes beyond its own usage. Pods that cannot be
 * measured are left out.
 */
export const podOverheadSchema = v.object({
  namespace: v.string(),
  name: v.string(),
  /** Private memory of its VMM, less the pod's usage. */
  memoryBytes: v.number(),
  /** Processor time of its VMM less that of the pod, in thousandths of a core, since it started. */
  cpuMillis: v.number(),
});
export type PodOverhead = v.InferOutput<typeof podOverheadSchema>;
