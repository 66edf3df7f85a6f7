import * as v from 'valibot';
import { errorKinds } from '#base/errors.ts';
import { askParams, askResult, examineMountsResult, examineResult } from './examination.ts';
import { cgroupFigures, interfaceFigures, metrics, spaceFigures } from './figures.ts';
import { createContainer, startExec, stdio } from './container-params.ts';
import {
  absolutePath,
  base64,
  cells,
  count,
  list,
  name,
  path,
  phases,
  port,
  said,
  saidBase64,
  serial,
  shortText,
  streamId,
  userId,
} from './fields.ts';
import { limits } from './limits.ts';
import { changedResources, configure, connect, createVolume } from './pod-params.ts';

/**
 * The messages of host and agent, as JSON on stream 0. The host calls, the agent answers and sends events. Both ends parse
 * with these schemas: the agent its calls, the host everything from the guest.
 * Versions, newest first: 2 adds `list`, and `from` of `attach`, which a host needs to continue where another ended.
 * Words: a *stream* is a numbered byte stream on the same channel, opened by the host; `0` in a stream field means none.
 */
export const protocolVersions = [2, 1] as const;

const signalNumber = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64));
const empty = v.object({});
const process = v.object({ containerId: name, execId: v.optional(name) });

/** Parameters of each method. */
export const paramSchemas = {
  /**
   * Called after every boot or restore, before anything else. A spare machine is prepared under a temporary name, and
   * configured again for its pod: while it has no container the last call counts, otherwise `failedPrecondition`.
   */
  configure,
  /**
   * Gives a configured guest its network and limits. Can be repeated, as `configure`. A container can be made while the guest
   * connects, after this was called; it is started after the answer.
   */
  connect,
  /** Waits (up to 10 s) for the SCSI disk with that serial, and mounts it unless the file system is `none`. */
  attachDisk: v.object({
    serial,
    fileSystem: v.picklist(['erofs', 'ext4', 'none']),
    readOnly: v.boolean(),
    /** An ext4 with project quotas: the space of its directories is counted, and can be limited. */
    hasQuotas: v.optional(v.boolean()),
  }),
  /** Syncs and unmounts it, so that the host can remove the disk. `busy` (after 2 s) while it is in use. */
  detachDisk: v.object({ serial }),
  /** Called after the host has enlarged the disk: waits until the kernel sees it, and grows a mounted ext4. */
  growDisk: v.object({ serial, sizeBytes: count }),
  /** Loads the drivers of `share`, slow the first time, so it is called before a template is frozen. */
  prepareShares: empty,
  /**
   * Makes a container without an image, and removes it before its command runs: emulated, the first of the pod's own then takes
   * less time. It may be made meanwhile. The container has no disk, stream or mount.
   */
  rehearse: createContainer,
  /** Waits (up to 10 s) for the port of a `share`. */
  createVolume,
  /** Begins a new tree for a `push` volume, sent in parts; none of it is visible before `commitPush`. */
  beginPush: v.object({ volume: name }),
  /**
   * Sends a part of one file; the parts of a file come in order. `path` is relative, directories are made. `uid` and `gid`
   * default to root and the volume's `fsGroup`.
   */
  pushFile: v.object({
    push: count,
    path,
    mode: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0o777)),
    uid: v.optional(userId),
    gid: v.optional(userId),
    data: base64,
  }),
  /** Switches the volume to the new tree in one rename, as kubelet does (`..data`). */
  commitPush: v.object({ push: count }),
  abortPush: v.object({ push: count }),
  /** Afterwards all writes to a `share` are on the host. `busy` while a volume is in use. */
  removeVolume: v.object({ name }),
  createContainer,
  startContainer: v.object({ id: name }),
  /** `all`: every process of the container. No error for a container that has exited. */
  signalContainer: v.object({ id: name, signal: signalNumber, all: v.optional(v.boolean()) }),
  updateContainer: v.object({ id: name, resources: changedResources }),
  /** Limits of the whole pod. */
  updatePod: v.object({ resources: changedResources }),
  /** Kills remaining processes, and removes cgroup, mounts and writable layer. No error for an unknown id. */
  removeContainer: v.object({ id: name }),
  /** The first `maxBytes` of a file in the container's root, or of its termination log. `notFound` if absent. */
  readFile: v.object({
    containerId: name,
    path: absolutePath,
    maxBytes: v.pipe(count, v.maxValue(limits.maxPushPartBytes)),
  }),
  startExec,
  /**
   * Gives new streams to a process whose old ones ended with their connection. `0` leaves one out. `from`: bytes of each
   * output, counted from the process' start, that the host has stored; later ones are sent again. Absent: only new output.
   * `exhausted` if the host has granted credit for more than it has stored.
   */
  attach: v.object({ ...process.entries, stdio, from: v.optional(v.object({ stdout: count, stderr: count })) }),
  signalExec: v.object({ containerId: name, execId: name, signal: signalNumber }),
  /** Window size of a container's or exec's tty. */
  resize: v.object({ ...process.entries, columns: cells, rows: cells }),
  /** Joins `stream` to a TCP connection from inside the guest. `unavailable` without a listener. */
  dial: v.object({
    stream: v.pipe(streamId, v.minValue(1)),
    /** IPv4 or IPv6 address; or `localhost`: 127.0.0.1, and if that refuses, ::1. */
    address: shortText,
    port,
    timeoutMs: v.optional(v.pipe(count, v.maxValue(60_000))),
  }),
  /** Cheap figures of the pod and all containers, requested every few seconds. */
  stats: empty,
  /** All figures of one container, or of the pod: one at a time, so that an answer fits its message. `notFound`. */
  metrics: v.object({ containerId: v.optional(name) }),
  /** Sends a datagram from inside the guest, and waits for an answer. */
  ask: askParams,
  /** What the guest knows of its network, clock, pressure and volumes. Touches no file system that the host serves. */
  examine: empty,
  /** What became of the mounts of a running container. `notFound`. */
  examineMounts: v.object({ containerId: name }),
  /**
   * Everything in the guest, for a host that continues where another ended. Waits for containers being made, and for a
   * `connect` under way.
   */
  list: empty,
  ping: empty,
  /** Signals all processes, kills them after `graceMs`, syncs, unmounts, powers off. Answers before it powers off. */
  shutdown: v.object({ graceMs: v.pipe(count, v.maxValue(3_600_000)) }),
} as const;

/** End of a process. */
const exit = v.object({
  /** 128 + signal for a process killed by one. */
  exitCode: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255)),
  signal: v.optional(signalNumber),
  /** Whether the kernel killed a process of the container for lack of memory. */
  oomKilled: v.boolean(),
  /** In `ms` since the epoch: the time of `configure` plus the elapsed time of the guest's monotonic clock. */
  finishedAtMs: v.number(),
});
export type ProcessExit = v.InferOutput<typeof exit>;

/** Answers of each method. */
export const resultSchemas = {
  configure: v.object({ phases }),
  connect: v.object({ phases }),
  attachDisk: v.object({ phases }),
  detachDisk: empty,
  growDisk: empty,
  prepareShares: empty,
  rehearse: empty,
  createVolume: empty,
  beginPush: v.object({ push: count }),
  pushFile: empty,
  commitPush: empty,
  abortPush: empty,
  removeVolume: empty,
  /** `pid` in the guest; `uid`, `gid` and the other `groups` as resolved. */
  createContainer: v.object({ pid: count, uid: userId, gid: userId, groups: v.optional(list(userId), []), phases }),
  startContainer: v.object({ startedAtMs: v.number() }),
  signalContainer: empty,
  updateContainer: empty,
  updatePod: empty,
  removeContainer: empty,
  readFile: v.object({ data: saidBase64(limits.maxPushPartBytes), truncated: v.boolean() }),
  startExec: v.object({ pid: count }),
  attach: empty,
  signalExec: empty,
  resize: empty,
  dial: empty,
  stats: v.object({
    agentRssKiB: count,
    /** Memory that the engine has allocated, in `bytes`. */
    agentHeapBytes: count,
    agentFds: count,
    pod: cgroupFigures,
    /** `layer`: the writable layer, if that is on a disk. */
    containers: list(v.object({ id: name, ...cgroupFigures.entries, layer: v.optional(spaceFigures) })),
    /** Volumes on a scratch disk. */
    volumes: v.optional(list(v.object({ name, ...spaceFigures.entries })), []),
    interfaces: v.optional(interfaceFigures, []),
  }),
  metrics,
  ask: askResult,
  examine: examineResult,
  examineMounts: examineMountsResult,
  list: v.object({
    containers: list(
      v.object({
        id: name,
        /** Pid of the first process, in the guest. */
        pid: count,
        /** Absent: not started. */
        startedAtMs: v.optional(v.number()),
        /** Kept until `removeContainer`. Absent: it has not ended. */
        exit: v.optional(exit),
        execs: list(v.object({ execId: name, pid: count }), limits.maxExecs),
      }),
      limits.maxContainers,
    ),
    volumes: list(name, limits.maxVolumes),
    /** Serials. */
    disks: list(serial, limits.maxDisks),
    /** How the last `connect` ended. Absent: none since `configure`, and of earlier agents. */
    connection: v.optional(v.object({ failure: v.optional(said(1024)) })),
  }),
  ping: v.object({ uptimeMs: v.number() }),
  shutdown: empty,
} as const satisfies Record<keyof typeof paramSchemas, v.GenericSchema>;

export type Method = keyof typeof paramSchemas;
export type Params<M extends Method> = v.InferOutput<(typeof paramSchemas)[M]>;
/** An answer as the agent writes it. */
export type Answer<M extends Method> = v.InferInput<(typeof resultSchemas)[M]>;
/** A result as the host reads it. */
export type Result<M extends Method> = v.InferOutput<(typeof resultSchemas)[M]>;

export const agentEventSchema = v.variant('kind', [
  v.object({
    kind: v.literal('exited'),
    containerId: name,
    /** Absent: the container's first process. */
    execId: v.optional(name),
    ...exit.entries,
  }),
  /** A process of a container was killed for lack of memory; the container may continue. */
  v.object({ kind: v.literal('oomKilled'), containerId: name }),
  /** Content of a running container's termination log, shortly after it was written. */
  v.object({
    kind: v.literal('terminationMessage'),
    containerId: name,
    data: saidBase64(limits.maxTerminationBytes),
  }),
  /** A line of the agent's own log. */
  v.object({
    kind: v.literal('log'),
    level: v.picklist(['info', 'warn', 'error']),
    text: said(2048),
  }),
]);
/** An event as the agent writes it. */
export type ToldEvent = v.InferInput<typeof agentEventSchema>;
/** An event as the host reads it. */
export type AgentEvent = v.InferOutput<typeof agentEventSchema>;
export type ExitedEvent = Extract<AgentEvent, { kind: 'exited' }>;

/** The host's first message, repeated until it is answered. The epoch is in the frame's header. */
export const helloSchema = v.object({
  t: v.literal('hello'),
  /** Protocol versions that the host supports. */
  versions: list(count, 16),
  /** Maximum payload of a data frame that the host takes, in `bytes`. Absent: `limits.maxDataBytes`, as of earlier hosts. */
  maxDataBytes: v.optional(count),
});
export type Hello = v.InferOutput<typeof helloSchema>;

export const welcomeSchema = v.object({
  t: v.literal('welcome'),
  /** The version that both use from now on; 0 when they have none in common. */
  version: count,
  agentVersion: said(512),
  engine: said(512),
  /** Boot, phase by phase, in `ms`. */
  phases,
  /** Whether `configure` was called already, by an earlier host. */
  configured: v.boolean(),
  /** Whether `seccomp` of a container may be a program. Absent: false, as of earlier agents. */
  takesPrograms: v.optional(v.boolean()),
});
/** A welcome as the agent writes it. */
export type ToldWelcome = v.InferInput<typeof welcomeSchema>;
/** A welcome as the host reads it. */
export type Welcome = v.InferOutput<typeof welcomeSchema>;

const callId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0x7fff_ffff));

export const callSchema = v.object({
  t: v.literal('call'),
  id: callId,
  method: shortText,
  params: v.unknown(),
  /** Id of the client's call that the host works for: the agent's log names it. Absent: none, or not to be told of. */
  request: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{1,32}$/))),
});
export type CallMessage = v.InferOutput<typeof callSchema>;

/** Messages from host to agent. */
export const hostMessageSchema = v.variant('t', [helloSchema, callSchema]);

/** Messages from agent to host. */
export const agentMessageSchema = v.variant('t', [
  welcomeSchema,
  v.object({ t: v.literal('result'), id: callId, value: v.unknown() }),
  v.object({
    t: v.literal('error'),
    id: callId,
    kind: v.picklist(errorKinds),
    message: said(4096),
  }),
  v.object({ t: v.literal('event'), event: agentEventSchema }),
]);
/** A message as the agent writes it. */
export type ToldMessage = v.InferInput<typeof agentMessageSchema>;
/** A message as the host reads it. */
export type AgentMessage = v.InferOutput<typeof agentMessageSchema>;
