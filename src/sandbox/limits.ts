import { availableParallelism, totalmem } from 'node:os';
import type { TreeLimits } from '#storage/host-tree.ts';
import { defaultLogLimits, type LogLimits } from './log/log-writer.ts';
import type { UserIdRange } from '#host/user-ids.ts';
import type { SizeLimits } from './resources.ts';

/** Every limit and deadline of this layer, in one table. */
export interface SandboxLimits {
  readonly size: SizeLimits;
  readonly logs: LogLimits;
  /** User ids of VMMs; absent: those of the state directory. */
  readonly userIds?: UserIdRange;
  /** Simultaneous sandboxes of this node. */
  readonly maxSandboxes: number;
  /** Simultaneous starts of machines: more would only compete for the processor. */
  readonly maxStarts: number;
  /** Machines that wait in a pool of automatic size. */
  readonly maxSpares: number;
  /**
   * Descriptors that one start may take, including those of the programs that it runs; a sandbox keeps fewer than a
   * tenth of them.
   */
  readonly maxStartDescriptors: number;
  /** Containers of a sandbox, including exited ones. */
  readonly maxContainers: number;
  /** Kept logs of a container's earlier attempts. */
  readonly maxOldLogs: number;
  /** Limits of a volume that is copied into the guest; the bytes are the wire's limit (`maxPushVolumeBytes`). */
  readonly pushedTrees: TreeLimits;
  /** Bytes of a termination message; kubelet's limit. */
  readonly maxTerminationBytes: number;
  /** Free bytes that the state directory must have before a sandbox is made. */
  readonly minFreeBytes: number;
  /** Memory that the node must have available, in bytes, besides the reserve; with less, no machine waits in the pool. */
  readonly minAvailableBytes: number;
  /** Memory that the node must have available after a start, in bytes; a pod that would leave less is refused. 0: never. */
  readonly memoryReserveBytes: number;
  /** Memory that a machine takes to start, in bytes. */
  readonly startBytes: number;
  /** Time from the VMM's start to the agent's first answer. An emulated cold boot takes 2 to 4 s, on a busy node 20. */
  readonly bootTimeoutMs: number;
  /** Timeout for making a template, until which pods wait for it: a cold boot on a busy node and some 100 MB written. */
  readonly templateTimeoutMs: number;
  /**
   * Timeout of a call that a live agent never answers, for callers without a deadline of their own (a kubelet's is 2
   * minutes). A dead guest ends its link earlier (`link/heartbeat.ts`).
   */
  readonly callTimeoutMs: number;
  /** Deadline of clean-up in a guest, and of reads at a container's end, for which no caller waits. */
  readonly cleanUpTimeoutMs: number;
  /** Timeout for taking over one sandbox, whose guest must answer a few calls. */
  readonly adoptTimeoutMs: number;
  /** Time from the loss of the link to the machine's own report of its end. */
  readonly lastWordsMs: number;
  /**
   * Timeout of the request to kill a container: longer than the heartbeat needs to end a machine that does not answer
   * (`link/heartbeat.ts`).
   */
  readonly killAnswerMs: number;
  /** Time from SIGKILL to the container's end. */
  readonly killTimeoutMs: number;
  /** Interval of checks whether a block volume has grown. */
  readonly growthIntervalMs: number;
  /** Interval at which the networks of running pods are checked. */
  readonly mendIntervalMs: number;
  /** Time after which what a start could not undo is tried again. */
  readonly undoAgainMs: number;
  /** Time in which the end of a sandbox waits for output that log and followers have not taken yet. */
  readonly drainTimeoutMs: number;
}

const totalMiB = Math.floor(totalmem() / (1024 * 1024));
/** The kernel's page tables take 1.6 % of this, and are part of the template's file. */
const maxNominalMiB = 16 * 1024;
/** Part of the node's memory that waiting machines may use, and what one uses, in `MiB`. */
const sparesPart = 0.05;
const spareMiB = 96;

export const defaultLimits: SandboxLimits = {
  size: {
    defaultMemoryMiB: 512,
    nominalMemoryMiB: Math.min(Math.floor(totalMiB / 2), maxNominalMiB),
    overheadMiB: 128,
    vmmOverheadMiB: 192,
    vmmOverheadMillis: 1000,
    maxMemoryMiB: totalMiB,
    maxVcpus: availableParallelism(),
    defaultScratchBytes: 10 * 1024 ** 3,
  },
  logs: defaultLogLimits,
  maxSandboxes: 512,
  maxStarts: 2 * availableParallelism(),
  maxSpares: Math.max(1, Math.min(8, Math.floor((totalMiB * sparesPart) / spareMiB))),
  maxStartDescriptors: 64,
  maxContainers: 128,
  maxOldLogs: 4,
  pushedTrees: { maxBytes: 16 * 1024 * 1024, maxFiles: 16_384, maxDepth: 32 },
  maxTerminationBytes: 4096,
  minFreeBytes: 64 * 1024 * 1024,
  minAvailableBytes: totalmem() / 10,
  memoryReserveBytes: Math.min(totalmem() / 50, 512 * 1024 * 1024),
  startBytes: spareMiB * 1024 * 1024,
  bootTimeoutMs: 60_000,
  templateTimeoutMs: 180_000,
  callTimeoutMs: 600_000,
  cleanUpTimeoutMs: 30_000,
  adoptTimeoutMs: 120_000,
  lastWordsMs: 1000,
  killAnswerMs: 35_000,
  killTimeoutMs: 10_000,
  growthIntervalMs: 2_000,
  mendIntervalMs: 4_000,
  undoAgainMs: 15_000,
  drainTimeoutMs: 5000,
};
