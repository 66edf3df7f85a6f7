import * as v from 'valibot';
import { podEventSchema } from './pods.ts';

/** Description of one pod of any owner; all text is printable. */
const limits = v.object({
  memoryLimitBytes: v.optional(v.number()),
  memoryRequestBytes: v.optional(v.number()),
  /** Thousandths of a core. */
  cpuLimitMillis: v.optional(v.number()),
  cpuRequestMillis: v.optional(v.number()),
});
export type DescribedLimits = v.InferOutput<typeof limits>;

const use = v.object({ memoryBytes: v.number(), cpuSeconds: v.number(), threads: v.number() });

const describedContainer = v.object({
  name: v.string(),
  image: v.string(),
  /** `waiting`, `running` or `terminated`; for a kubelet's pod, the runtime's word. */
  state: v.string(),
  reason: v.optional(v.string()),
  message: v.optional(v.string()),
  exitCode: v.optional(v.number()),
  restartCount: v.optional(v.number()),
  startedAt: v.optional(v.string()),
  limits,
  /** Absent while the container does not run or its guest does not answer. */
  use: v.optional(v.object({ ...use.entries, oomKills: v.number() })),
  mounts: v.array(v.object({ mountPath: v.string(), mode: v.string() })),
  logPath: v.optional(v.string()),
});
export type DescribedContainer = v.InferOutput<typeof describedContainer>;

export const podDescriptionSchema = v.object({
  namespace: v.string(),
  name: v.string(),
  /** Program that made the pod. */
  madeBy: v.picklist(['podvm', 'kubelet', 'containerd']),
  /** Kubernetes' phase; for a kubelet's pod, the state of its machine. */
  phase: v.string(),
  reason: v.optional(v.string()),
  createdAt: v.string(),
  addresses: v.array(v.string()),
  /** Absent until the machine exists. */
  machine: v.optional(
    v.object({
      id: v.string(),
      state: v.string(),
      accelerator: v.optional(v.string()),
      pid: v.optional(v.number()),
      /** Reason why the machine ended. */
      failure: v.optional(v.string()),
      parts: v.record(v.string(), v.string()),
      /** Steps of its start, in the order in which they ended; many run side by side. */
      timeline: v.array(
        v.object({
          name: v.string(),
          ms: v.number(),
          /** Time from the beginning of the start to that of the step; absent for machines of older versions. */
          startMs: v.optional(v.number()),
          /** Median of the node's latest starts; absent while there are too few. */
          medianMs: v.optional(v.number()),
          /** The step took more than twice the median, and more than 100 ms longer. */
          isSlow: v.boolean(),
        }),
      ),
      limits,
      /** Usage of the whole pod, as measured by its guest. */
      use: v.optional(use),
      /** Resources of the node that the machine uses. */
      cost: v.optional(
        v.object({
          guestMemoryBytes: v.number(),
          privateBytes: v.number(),
          sharedBytes: v.number(),
          cpuSeconds: v.number(),
          waitSeconds: v.number(),
        }),
      ),
      /** Reason why figures are missing. */
      unmeasured: v.optional(v.string()),
      warnings: v.array(v.string()),
      /** Missing restrictions of the VMM's jail; empty if it is complete, absent while there is no VMM. */
      jailWeaknesses: v.optional(v.array(v.string())),
      volumes: v.array(v.object({ name: v.string(), mode: v.string() })),
    }),
  ),
  containers: v.array(describedContainer),
  /** Events of a pod that podvm made; a kubelet reports its own. */
  events: v.array(podEventSchema),
  /** Last lines of the guest's console: the kernel's log and the agent's. */
  console: v.array(v.string()),
});
export type PodDescription = v.InferOutput<typeof podDescriptionSchema>;
