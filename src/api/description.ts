import * as v from 'valibot';
import { podEventSchema } from './pods.ts';

/** What a person wants to know of one pod, also of a kubelet's or containerd's; all text is printable. */
const limits = v.object({
  memoryLimitBytes: v.optional(v.number()),
  /** Thousandths of a core. */
  cpuLimitMillis: v.optional(v.number()),
  cpuRequestMillis: v.optional(v.number()),
});
export type DescribedLimits = v.InferOutput<typeof limits>;

const use = v.object({ memoryBytes: v.number(), cpuSeconds: v.number(), threads: v.number() });

const describedContainer = v.object({
  name: v.string(),
  image: v.string(),
  /** `waiting`, `running` or `terminated`; of a kubelet's pod the runtime's word. */
  state: v.string(),
  reason: v.optional(v.string()),
  message: v.optional(v.string()),
  exitCode: v.optional(v.number()),
  restartCount: v.optional(v.number()),
  startedAt: v.optional(v.string()),
  limits,
  /** Absent while it does not run, or while its guest does not answer. */
  use: v.optional(v.object({ ...use.entries, oomKills: v.number() })),
  mounts: v.array(v.object({ mountPath: v.string(), mode: v.string() })),
  logPath: v.optional(v.string()),
});
export type DescribedContainer = v.InferOutput<typeof describedContainer>;

export const podDescriptionSchema = v.object({
  namespace: v.string(),
  name: v.string(),
  /** Who made it. */
  madeBy: v.picklist(['podvm', 'kubelet', 'containerd']),
  /** Kubernetes' phase; of a kubelet's pod the state of its machine. */
  phase: v.string(),
  reason: v.optional(v.string()),
  createdAt: v.string(),
  addresses: v.array(v.string()),
  /** Absent until it exists. */
  machine: v.optional(
    v.object({
      id: v.string(),
      state: v.string(),
      accelerator: v.optional(v.string()),
      pid: v.optional(v.number()),
      /** Why it ended. */
      failure: v.optional(v.string()),
      parts: v.record(v.string(), v.string()),
      /** Steps of its start, in the order in which they ended; many run side by side. */
      timeline: v.array(
        v.object({
          name: v.string(),
          ms: v.number(),
          /** Of the node's latest starts; absent before there are some. */
          medianMs: v.optional(v.number()),
          /** It took more than twice the median, and 100 ms more. */
          isSlow: v.boolean(),
        }),
      ),
      limits,
      /** Of the whole pod, by its guest. */
      use: v.optional(use),
      /** What the node spends on it. */
      cost: v.optional(
        v.object({
          guestMemoryBytes: v.number(),
          privateBytes: v.number(),
          sharedBytes: v.number(),
          cpuSeconds: v.number(),
          waitSeconds: v.number(),
        }),
      ),
      /** Why figures are missing. */
      unmeasured: v.optional(v.string()),
      warnings: v.array(v.string()),
      /** What its VMM's jail lacks; empty if it is complete; absent while there is no VMM. */
      jailWeaknesses: v.optional(v.array(v.string())),
      volumes: v.array(v.object({ name: v.string(), mode: v.string() })),
    }),
  ),
  containers: v.array(describedContainer),
  /** Of pods that podvm made; a kubelet tells its own. */
  events: v.array(podEventSchema),
  /** Last lines of the guest's console: the kernel's log and the agent's. */
  console: v.array(v.string()),
});
export type PodDescription = v.InferOutput<typeof podDescriptionSchema>;
