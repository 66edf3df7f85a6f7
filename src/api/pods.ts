import * as v from 'valibot';

/**
 * JSON shapes of the admin API that concern pods. Times are RFC 3339 in UTC. Paths:
 *
 *   GET  /v1/pods?ended=                              PodSummary[], also of a kubelet and of containerd; with `ended=true` also
 *                                                     those that have ended
 *   GET  /v1/pods/{namespace}/{name}                  PodDetails
 *   GET  /v1/pods/{namespace}/{name}/description      PodDescription, see description.ts
 *   GET  /v1/pods/{namespace}/{name}/diagnosis        Diagnosis, see finding.ts: asks the guest, within seconds
 *   GET  /v1/log                                      the last lines of the node's log
 *   POST /v1/pods/{namespace}/{name}/stop             StopRequest -> PodSummary, when it has stopped
 *   POST /v1/pods/{namespace}/{name}/start            PodSummary, when a container runs
 *   POST /v1/pods/{namespace}/{name}/restart          StopRequest -> PodSummary, when a container runs
 *   POST /v1/pods/{namespace}/{name}/pause            PodSummary, when its machine is frozen; unpause: when it runs
 *   POST /v1/pods/{namespace}/{name}/rename           RenameRequest -> PodSummary
 *   POST /v1/pods/{namespace}/{name}/resize           ResizeRequest -> ResizeAnswer, when the limits hold
 *   GET  /v1/pods/{namespace}/{name}/manifest         the Pod as JSON, with all defaults and its present limits
 *   GET  /v1/pods/{namespace}/{name}/wait             PodOutcome, when it has ended
 *   DELETE /v1/pods/{namespace}/{name}?force=         PodSummary
 *   GET  /v1/pods/{namespace}/{name}/logs?container=&follow=&tail=&previous=&timestamps=&since=&until=   bytes
 *   GET  /v1/pods/{namespace}/{name}/console?follow=  bytes
 *   POST /v1/pods/{namespace}/{name}/kill             KillRequest -> PodSummary, when the signal was sent
 *   GET  /v1/events?namespace=&name=&follow=          lines of NodeEvents of pods of `podvm run`
 *   WS   /v1/pods/{namespace}/{name}/exec, debug      see exec.ts
 *   WS   /v1/pods/{namespace}/{name}/attach           see run.ts
 *   WS   /v1/pods/{namespace}/{name}/port-forward?port=   one connection: bytes in both directions, an empty frame is its end
 *   WS   /v1/run                                      see run.ts
 *   WS   /v1/command                                  `podvm run` of a caller of the same build, see src/cli/served/caller.c
 *
 * `{namespace}` may be `_`: the name must then be unique among the namespaces.
 */
export const containerSummarySchema = v.object({
  name: v.string(),
  kind: v.picklist(['init', 'sidecar', 'main']),
  image: v.string(),
  /** `waiting`, `running` or `terminated`. */
  state: v.string(),
  /** Kubernetes' reason for the state: `CrashLoopBackOff`, `OOMKilled`, `Completed`... */
  reason: v.optional(v.string()),
  message: v.optional(v.string()),
  ready: v.boolean(),
  restartCount: v.number(),
  exitCode: v.optional(v.number()),
  startedAt: v.optional(v.string()),
  /** Whether clients can pass input to it, and whether it has a terminal. */
  stdin: v.optional(v.boolean()),
  tty: v.optional(v.boolean()),
});
export type ContainerSummary = v.InferOutput<typeof containerSummarySchema>;

export const podSummarySchema = v.object({
  namespace: v.string(),
  name: v.string(),
  /**
   * Kubernetes' phase: Pending, Running, Succeeded, Failed; `Terminating` during a stop; `Paused`; `Orphaned` if its podvm
   * was killed.
   */
  phase: v.string(),
  /** Ready main containers and sidecars, out of all. */
  ready: v.string(),
  restarts: v.number(),
  /**
   * Program that decides about the pod: `podvm`, `kubelet` (or another client of CRI) or `containerd`; absent: `podvm`.
   */
  owner: v.optional(v.string()),
  createdAt: v.string(),
  addresses: v.array(v.string()),
  labels: v.optional(v.record(v.string(), v.string())),
  /** Images of its containers. */
  images: v.optional(v.array(v.string())),
  /** Reason, if the phase alone does not tell it. */
  reason: v.optional(v.string()),
  /** With the reason `LeftAlone`: why this podvm can only end the pod. */
  message: v.optional(v.string()),
  /** Time of the end and exit code; absent until the pod has ended. */
  endedAt: v.optional(v.string()),
  exitCode: v.optional(v.number()),
});
export type PodSummary = v.InferOutput<typeof podSummarySchema>;

export const podEventSchema = v.object({
  at: v.string(),
  type: v.picklist(['Normal', 'Warning']),
  reason: v.string(),
  message: v.string(),
  /** Action for the operator. */
  fix: v.optional(v.string()),
  container: v.optional(v.string()),
});
export type PodEventJson = v.InferOutput<typeof podEventSchema>;

/** A line of `GET /v1/events`. */
export const nodeEventSchema = v.object({ namespace: v.string(), name: v.string(), ...podEventSchema.entries });
export type NodeEvent = v.InferOutput<typeof nodeEventSchema>;

/** Usage of the scratch disk. */
const space = v.object({ bytes: v.number(), inodes: v.number() });

/** Usage of a cgroup in the guest. */
const cgroup = {
  memoryBytes: v.number(),
  /** Anonymous memory of its processes. */
  rssBytes: v.number(),
  memoryLimitBytes: v.optional(v.number()),
  cpuUsec: v.number(),
  /** Number of threads. */
  pids: v.number(),
};

const bound = v.union([v.number(), v.literal('unlimited')]);

/** Confinement of the VMM, as reported by the host's kernel. */
const jailSchema = v.object({
  /** Missing restrictions, in words; empty if complete. */
  weaknesses: v.array(v.string()),
  uid: v.number(),
  gid: v.number(),
  groups: v.array(v.number()),
  /** Capabilities in hexadecimal; `0`: none. */
  capabilities: v.string(),
  noNewPrivileges: v.boolean(),
  seccompFilters: v.number(),
  /** Kinds of namespaces that it does not share with podvm. */
  namespaces: v.array(v.string()),
  limits: v.record(v.string(), bound),
  cgroup: v.record(v.string(), bound),
  mounts: v.array(
    v.object({
      at: v.string(),
      type: v.string(),
      readOnly: v.boolean(),
      noSuid: v.boolean(),
      noDevices: v.boolean(),
    }),
  ),
  devices: v.array(v.string()),
});

export const podDetailsSchema = v.object({
  ...podSummarySchema.entries,
  uid: v.string(),
  labels: v.record(v.string(), v.string()),
  containers: v.array(containerSummarySchema),
  events: v.array(podEventSchema),
  /** The pod's sandbox; absent until it exists. */
  sandbox: v.optional(
    v.object({
      id: v.string(),
      state: v.string(),
      accelerator: v.optional(v.string()),
      /** Versions of the machine's parts, which an upgrade does not change. */
      parts: v.object({
        /** Machines with the same key have the same parts. */
        key: v.string(),
        qemu: v.string(),
        kernel: v.string(),
        crun: v.string(),
        /** Hash of its sources. */
        agent: v.string(),
      }),
      vmmPid: v.optional(v.number()),
      /** Memory that its containers request together; absent if none does. */
      memoryRequestBytes: v.optional(v.number()),
      failure: v.optional(v.string()),
      jail: v.optional(jailSchema),
      /** The start's phases: their durations, and when they began after the start did, in `ms`. */
      phases: v.array(v.object({ name: v.string(), ms: v.number(), startMs: v.optional(v.number()) })),
      volumes: v.array(v.object({ name: v.string(), mode: v.string() })),
      /** Mode by which each mount of each container reaches the guest. */
      mounts: v.array(v.object({ container: v.string(), mountPath: v.string(), mode: v.string() })),
      logs: v.record(v.string(), v.string()),
      stats: v.optional(
        v.object({
          agentRssKiB: v.number(),
          agentFds: v.number(),
          vmmPssKiB: v.number(),
          /** Memory that only its VMM uses, guest included; absent in older versions. */
          vmmPrivateBytes: v.optional(v.number()),
          /** Dropped frames and packets of the guest, by the reason; absent where none are counted. */
          dropped: v.optional(v.record(v.string(), v.number())),
          /** Usage of the whole pod in its guest. */
          ...cgroup,
          containers: v.array(
            v.object({
              name: v.string(),
              ...cgroup,
              oomKills: v.number(),
              layer: v.optional(space),
            }),
          ),
          /** Volumes on the scratch disk. */
          volumes: v.optional(v.array(v.object({ name: v.string(), ...space.entries })), []),
          /** Interfaces of the pod's network, without loopback. */
          interfaces: v.array(
            v.object({
              name: v.string(),
              rxBytes: v.number(),
              rxPackets: v.number(),
              rxErrors: v.number(),
              rxDropped: v.number(),
              txBytes: v.number(),
              txPackets: v.number(),
              txErrors: v.number(),
              txDropped: v.number(),
            }),
          ),
        }),
      ),
    }),
  ),
});
export type PodDetails = v.InferOutput<typeof podDetailsSchema>;

/** Outcome of a pod that has ended. */
export const podOutcomeSchema = v.object({ exitCode: v.number(), reason: v.string(), message: v.optional(v.string()) });
export type PodOutcome = v.InferOutput<typeof podOutcomeSchema>;

export const podNameSchema = v.pipe(
  v.string(),
  v.maxLength(253),
  v.regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, 'must be a DNS subdomain'),
);

export const renameRequestSchema = v.strictObject({ name: podNameSchema });

export const stopRequestSchema = v.strictObject({
  /** Overrides the pod's terminationGracePeriodSeconds. */
  graceSeconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(86_400))),
});

/** New limits of one container; absent ones stay. */
export const resizeRequestSchema = v.pipe(
  v.strictObject({
    container: v.string(),
    memoryLimitBytes: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
    /** Thousandths of a core. */
    cpuLimitMillis: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(10_000_000))),
  }),
  v.check((wish) => (wish.memoryLimitBytes ?? wish.cpuLimitMillis) !== undefined, 'must have a limit'),
);
export type ResizeRequest = v.InferOutput<typeof resizeRequestSchema>;

/** Sentences about limits that were reduced to the machine's size. */
export const resizeAnswerSchema = v.object({ warnings: v.array(v.string()) });

export const killRequestSchema = v.strictObject({
  /** Number of the signal. */
  signal: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64)),
  /** Default: all that run. */
  container: v.optional(v.string()),
});

/** Pods that `POST /v1/drain` has ended. The request is the same. */
export const drainedPodSchema = v.object({ namespace: v.string(), name: v.string() });
export type DrainedPod = v.InferOutput<typeof drainedPodSchema>;

export const errorBodySchema = v.object({
  kind: v.string(),
  message: v.string(),
  fix: v.optional(v.string()),
  tail: v.optional(v.array(v.string())),
});
export type ErrorBody = v.InferOutput<typeof errorBodySchema>;
