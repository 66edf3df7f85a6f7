import * as v from 'valibot';
import { count, list, name, port, saidBase64, shortText } from './fields.ts';
import { limits } from './limits.ts';

/** Calls with which the host looks for the cause of a pod's trouble. Their answers are the guest's, and prove nothing. */

/** A datagram and the first one that answers it. Errors: `unavailable` with an errno, `timeout`. */
export const askParams = v.object({
  address: shortText,
  port,
  data: saidBase64(limits.maxDatagramBytes),
  timeoutMs: v.pipe(count, v.maxValue(10_000)),
});
export const askResult = v.object({ data: saidBase64(limits.maxDatagramBytes) });

/** The beginning of a file of the guest's kernel, or of one that the agent has written; absent if it cannot be read. */
const file = v.optional(saidBase64(limits.maxExaminedBytes));

export const examineResult = v.object({
  /** The guest's wall clock, in `ms` since the epoch. */
  realtimeMs: v.pipe(v.number(), v.finite()),
  files: v.object({
    /** /proc/net/fib_trie, and those of the next names. */
    fibTrie: file,
    ifInet6: file,
    route: file,
    ipv6Route: file,
    arp: file,
    resolvConf: file,
    /** Of the pod's cgroup (Documentation/accounting/psi.rst). */
    cpuPressure: file,
    memoryPressure: file,
    ioPressure: file,
  }),
  /** File systems of the volumes that are not served by the host. */
  volumes: list(
    v.object({ name, totalBytes: count, freeBytes: count, totalInodes: count, freeInodes: count }),
    limits.maxVolumes,
  ),
});
export type ExaminedFile = keyof v.InferOutput<typeof examineResult>['files'];

/** The container's mounts in the order of `createContainer`, as far as the limit. */
export const examineMountsResult = v.object({
  mounts: list(
    v.object({
      /** As `createContainer` had it. */
      volume: name,
      isWantedReadOnly: v.boolean(),
      /** Absent: it is not there. */
      found: v.optional(v.object({ isReadOnly: v.boolean() })),
    }),
    limits.maxExaminedMounts,
  ),
});
export type ExaminedMounts = v.InferOutput<typeof examineMountsResult>['mounts'];
