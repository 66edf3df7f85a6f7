import * as v from 'valibot';

/** `GET /v1/node`: NodeDetails. */
export const nodeDetailsSchema = v.object({
  /** Number of machines in the pool. */
  waitingMachines: v.number(),
  /** Memory in bytes; absent in older versions, as is `cpu`. */
  memory: v.optional(
    v.object({
      totalBytes: v.number(),
      /** Memory that new pods could use without swapping. */
      availableBytes: v.number(),
      /** The part of it that the node keeps: pods that would take from it are refused. */
      reserveBytes: v.number(),
      /** Sum of the requests of running pods, and of the memory that only their VMMs use. */
      requestsBytes: v.optional(v.number(), 0),
      usedBytes: v.optional(v.number(), 0),
      /** Sum of the limits of running pods, and the number of pods without one. */
      limitsBytes: v.number(),
      unlimitedPods: v.number(),
    }),
  ),
  /** Thousandths of a core. */
  cpu: v.optional(
    v.object({
      totalMillis: v.number(),
      requestsMillis: v.number(),
      limitsMillis: v.number(),
      unlimitedPods: v.number(),
    }),
  ),
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
