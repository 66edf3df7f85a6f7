import { availableParallelism, totalmem } from 'node:os';
import type { TreeLimits } from '#storage/host-tree.ts';
import { defaultLogLimits, type LogLimits } from './log/log-writer.ts';
import type { UserIdRange } from './names.ts';
import type { SizeLimits } from './resources.ts';

/** Every limit and deadline of this layer, in one table. */
export interface SandboxLimits {
  readonly size: SizeLimits;
  readonly logs: LogLimits;
  /** Of VMMs; absent: those of the state directory. */
  readonly userIds?: UserIdRange;
  /** Sandboxes of this node at a time. */
  readonly maxSandboxes: number;
  /** Machines that are made at a time: more of them only take the processor from each other. */
  readonly maxStarts: number;
  /** Containers that a sandbox knows at a time, exited ones included. */
  readonly maxContainers: number;
  /** Logs kept of a container's earlier attempts. */
  readonly maxOldLogs: number;
  /** Of a volume that is copied into the guest; the bytes are the wire's limit (`maxPushVolumeBytes`). */
  readonly pushedTrees: TreeLimits;
  /** Bytes of a termination message; kubelet's limit. */
  readonly maxTerminationBytes: number;
  /** Free bytes the state directory must have before a sandbox is made. */
  readonly minFreeBytes: number;
  /** Memory that the node must have left, in bytes; below it no machine waits in the pool. */
  readonly minAvailableBytes: number;
  /** From the VMM's start to the agent's first answer. An emulated cold boot takes 2 to 4 s, on a busy node 20. */
  readonly bootTimeoutMs: number;
  /**
   * Of a call to an agent that lives and never answers it. Callers have deadlines of their own, a kubelet's is 2 minutes,
   * and a guest that is dead ends its link (`link/agent-link.ts`): this is for a caller without one.
   */
  readonly callTimeoutMs: number;
  /** Of what is undone in a guest, or read of it at a container's end, for which no caller waits. */
  readonly cleanUpTimeoutMs: number;
  /** From the loss of the link to the machine's own word of its end. */
  readonly lastWordsMs: number;
  /** From SIGKILL to the container's end. */
  readonly killTimeoutMs: number;
  /** Between two looks whether a block volume has grown. */
  readonly growthIntervalMs: number;
  /** How long the end of a sandbox waits for output that log and followers have not taken yet. */
  readonly drainTimeoutMs: number;
}

const totalMiB = Math.floor(totalmem() / (1024 * 1024));
/** The kernel's page tables for it are 1.6 % of it, and lie in the template's file. */
const maxNominalMiB = 16 * 1024;

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
  maxContainers: 128,
  maxOldLogs: 4,
  pushedTrees: { maxBytes: 16 * 1024 * 1024, maxFiles: 16_384, maxDepth: 32 },
  maxTerminationBytes: 4096,
  minFreeBytes: 64 * 1024 * 1024,
  minAvailableBytes: totalmem() / 10,
  bootTimeoutMs: 60_000,
  callTimeoutMs: 600_000,
  cleanUpTimeoutMs: 30_000,
  lastWordsMs: 1000,
  killTimeoutMs: 10_000,
  growthIntervalMs: 2_000,
  drainTimeoutMs: 5000,
};
