import * as v from 'valibot';
import { errorKinds } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { cgroupFigures, interfaceFigures, metrics, spaceFigures } from './figures.ts';
import { limits } from './limits.ts';

/**
 * The messages of host and agent, as JSON on stream 0. The host calls, the agent answers and sends events. Both ends parse
 * with these schemas: the agent its calls, the host everything from the guest.
 * Versions, newest first: 2 adds `list`, and `from` of `attach`, which a host needs to continue where another ended.
 * Words: a *stream* is a numbered byte stream on the same channel, opened by the host; `0` in a stream field means none.
 */
export const protocolVersions = [2, 1] as const;

/** Name of a volume, a container, an exec: a file name in the guest, never `.` or `..`. */
const name = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/));
const serial = v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,20}$/));
const path = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const absolutePath = v.pipe(path, v.startsWith('/'));
const text = v.pipe(v.string(), v.maxLength(limits.maxTextBytes));
/** Arguments or variables: too many for a schema to check one by one on the guest's engine. */
const processStrings = v.custom<string[]>(
  (value) => Array.isArray(value) && value.length <= limits.maxArguments && value.every(isProcessString),
  'no list of arguments',
);
const isProcessString = (value: unknown) => typeof value === 'string' && value.length < limits.maxArgumentBytes;
const processArgs = v.pipe(processStrings, v.minLength(1));
const etcFile = v.pipe(v.string(), v.maxLength(limits.maxEtcFileBytes));
const shortText = v.pipe(v.string(), v.maxLength(512));
/** Free text of the guest: a string to the agent that writes it, marked for the host that reads it. */
const said = (maxChars: number) => v.pipe(v.string(), v.maxLength(maxChars), v.transform(guestText));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const streamId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0x7fff_ffff));
const userId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_fffe));
const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const base64Of = (maxBytes: number) => v.pipe(v.string(), v.maxLength(Math.ceil((maxBytes * 4) / 3) + 4));
const base64 = base64Of(limits.maxPushPartBytes);
/** Bytes of the guest. Only the host reads them, so checking the alphabet costs the agent nothing. */
const saidBase64 = (maxBytes: number) => v.pipe(base64Of(maxBytes), v.regex(/^[A-Za-z0-9+/]*={0,2}$/));
const cells = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(10_000));
const list = <T extends v.GenericSchema>(item: T, max: number = limits.maxListItems) =>
  v.pipe(v.array(item), v.maxLength(max));
const textTable = v.pipe(
  v.record(shortText, text),
  v.check((table) => Object.keys(table).length <= limits.maxListItems, 'too many entries'),
);

/** Durations in `ms`, in order. */
const phases = list(v.object({ name: said(512), ms: v.pipe(v.number(), v.finite()) }));

const resources = v.object({
  /** memory.max in `bytes`. */
  memoryLimitBytes: v.optional(count),
  /** cpu.max: microseconds of each period. */
  cpuQuotaUs: v.optional(count),
  /** Default 100,000 `us`. */
  cpuPeriodUs: v.optional(count),
  /** cgroup v1 shares (2 to 262144), as in CRI; the agent converts them to a weight. */
  cpuShares: v.optional(count),
  pidsLimit: v.optional(count),
});
export type CgroupResources = v.InferOutput<typeof resources>;

const networkInterface = v.object({
  /** Name the interface gets, such as `eth0`. */
  name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,15}$/)),
  mac: v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)),
  mtu: v.pipe(v.number(), v.integer(), v.minValue(68), v.maxValue(65_535)),
  /** Addresses with prefix length: `10.1.0.5/24`, `fd00::5/64`. */
  addresses: list(shortText),
});
const network = v.object({
  interfaces: list(networkInterface, 16),
  /** `gateway` absent: on-link. */
  routes: list(v.object({ destination: shortText, gateway: v.optional(shortText) })),
});
export type NetworkConfig = v.InferOutput<typeof network>;

/** A range of ids: `containerId` and those after it are `hostId` and those after it in the guest. */
const idMapping = v.object({
  containerId: userId,
  hostId: userId,
  size: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffff_ffff)),
});
export type IdMapping = v.InferOutput<typeof idMapping>;
const idMappings = v.pipe(list(idMapping, limits.maxIdMappings), v.minLength(1));
const userNamespace = v.object({ uids: idMappings, gids: idMappings });
export type UserNamespace = v.InferOutput<typeof userNamespace>;

const configure = v.object({
  hostname: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  /** Wall clock of the host when it sends this, in `ms` since the epoch. */
  realtimeMs: v.number(),
  /** Fresh bytes from the host for the guest's random generator, in base64. */
  entropy: v.pipe(v.string(), v.maxLength(1024)),
  /** 32 hexadecimal digits. */
  machineId: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  sharePidNamespace: v.boolean(),
  /** `sealed`: until it ends, the kernel refuses modules without a signature of its makers. Absent: `open`. */
  kernelModules: v.optional(v.picklist(['sealed', 'open'])),
  /** Whether containers need SCTP, a module of the guest's kernel. Absent: false. */
  sctp: v.optional(v.boolean()),
  /** The pod's user namespace; absent: the guest's users are used. Permanent: `configure` is refused afterwards. */
  userNamespace: v.optional(userNamespace),
});

const connect = v.object({
  /** Whole text of /etc/hosts and /etc/resolv.conf of every container. */
  etcHosts: etcFile,
  resolvConf: etcFile,
  /** Dotted names: `net.core.somaxconn`. Set after the network exists, since they may name its interfaces. */
  sysctls: textTable,
  /** `null`: loopback only. */
  network: v.nullable(network),
  /** Limits of the whole pod. */
  resources,
});

const createVolume = v.object({
  name,
  kind: v.picklist(['scratch', 'tmpfs', 'push', 'image', 'share', 'block']),
  /**
   * Serial of an attached disk. `scratch`: the ext4 disk in which it is a directory; `image`: the EROFS disk; `block`: the
   * ext4 disk, with its content.
   */
  disk: v.optional(serial),
  /** `share`: name of the virtio-serial port that leads to the host's file server. */
  port: v.optional(serial),
  /** `tmpfs`: size of the file system. `scratch`: enforced by a project quota where the disk has quotas. In `bytes`. */
  sizeLimitBytes: v.optional(count),
  /** Permission bits of the volume's root; default 0o777. */
  mode: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0o7777))),
  /** Group that owns the volume and everything made in it. */
  fsGroup: v.optional(userId),
  /** Owner of the volume's root, and of directories that pushes make; default root. `fsGroup` takes precedence. */
  uid: v.optional(userId),
  gid: v.optional(userId),
  /**
   * `push`: files are overwritten in place, so that containers that have one of them mounted see it; there is no `..data`,
   * and a reader may see half of an update.
   */
  inPlace: v.optional(v.boolean()),
});
export type VolumeParams = v.InferOutput<typeof createVolume>;

const rlimit = v.object({
  /** OCI's name: `RLIMIT_NOFILE`. */
  type: v.pipe(v.string(), v.regex(/^RLIMIT_[A-Z]{2,12}$/)),
  soft: count,
  hard: count,
});

const capability = v.pipe(v.string(), v.regex(/^CAP_[A-Z_]{2,40}$/));

const containerProcess = v.object({
  args: processArgs,
  /** `NAME=value`; the agent adds PATH, HOME, HOSTNAME and (with a tty) TERM where absent. */
  env: processStrings,
  cwd: v.pipe(absolutePath),
  /** `""`, `uid`, `uid:gid`, `name`, `name:group`; names are looked up in the image's /etc/passwd and /etc/group. */
  user: v.pipe(v.string(), v.maxLength(256)),
  /** Overrides the group of `user`. */
  group: v.optional(userId),
  /** Refuses (`failedPrecondition`) a `user` that resolves to root. */
  requireNonRoot: v.optional(v.boolean()),
  supplementalGroups: list(userId),
  /** `strict`: ignores the groups that the image's /etc/group gives the user. Default `merge`. */
  supplementalGroupsPolicy: v.optional(v.picklist(['merge', 'strict'])),
  /** Additional group, that of the volumes. */
  fsGroup: v.optional(userId),
  /** `CAP_...` names: the bounding, permitted and effective set. */
  capabilities: list(capability, 64),
  /** Those that a non-root user keeps when it runs a program: also ambient and inheritable. */
  ambientCapabilities: v.optional(list(capability, 64)),
  noNewPrivileges: v.boolean(),
  rlimits: list(rlimit, 16),
  oomScoreAdj: v.optional(v.pipe(v.number(), v.integer(), v.minValue(-1000), v.maxValue(1000))),
});
export type ContainerProcess = v.InferOutput<typeof containerProcess>;

/** Stream numbers; `0`: none, the process gets /dev/null. With a tty all output is on `stdout`. */
const stdio = v.object({ stdin: streamId, stdout: streamId, stderr: streamId });
export type Stdio = v.InferOutput<typeof stdio>;

const mount = v.object({
  volume: name,
  /** Relative path in the volume, made if absent (not in an `image`); symlinks in it never lead out of the volume. */
  subPath: v.optional(path),
  destination: absolutePath,
  readOnly: v.boolean(),
});

const device = v.object({
  /** Serial of a disk that is attached with the file system `none`. */
  disk: serial,
  path: absolutePath,
  readOnly: v.boolean(),
});

const createContainer = v.object({
  id: name,
  /** Serial of the attached EROFS disk with the image's root file system. */
  imageDisk: serial,
  /** Serial of the attached ext4 disk for the writable layer; absent: the writable layer is in memory. */
  scratchDisk: v.optional(serial),
  /**
   * Serial of the attached EROFS disk with modules of the guest's kernel, which from then on may load those that it asks
   * for. Absent: unchanged.
   */
  modulesDisk: v.optional(serial),
  /** Limit of its writable layer on the scratch disk, in `bytes`; absent: the whole disk. */
  layerLimitBytes: v.optional(count),
  readOnlyRootfs: v.boolean(),
  tty: v.boolean(),
  columns: v.optional(cells),
  rows: v.optional(cells),
  stdio,
  process: containerProcess,
  mounts: list(mount),
  /** Writable directories of the image; those that `mounts` do not cover are made. */
  imageVolumes: v.optional(list(absolutePath)),
  /** Device nodes besides the usual ones: each with its own access rule, and owned by the container's user. */
  devices: v.optional(list(device)),
  /** All devices and capabilities of the guest, writable /sys; `capabilities` must also be given. */
  privileged: v.boolean(),
  /** OCI's `linux.seccomp` object; `null`: unconfined. Checked by crun. */
  seccomp: v.nullable(v.record(v.string(), v.unknown())),
  /** Absent: OCI's defaults. */
  maskedPaths: v.optional(list(absolutePath)),
  readonlyPaths: v.optional(list(absolutePath)),
  resources,
  /** Path of the termination log in the container; absent: there is none. */
  terminationLogPath: v.optional(absolutePath),
});
export type ContainerParams = v.InferOutput<typeof createContainer>;

const startExec = v.object({
  containerId: name,
  execId: name,
  args: processArgs,
  /** Added to the container's variables. */
  env: v.optional(processStrings),
  cwd: v.optional(absolutePath),
  tty: v.boolean(),
  columns: v.optional(cells),
  rows: v.optional(cells),
  stdio,
});
export type ExecParams = v.InferOutput<typeof startExec>;

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
  /** Gives a configured guest its network and limits. Can be repeated, as `configure`. */
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
  updateContainer: v.object({ id: name, resources }),
  /** Limits of the whole pod; absent ones stay. */
  updatePod: v.object({ resources }),
  /** Kills what still runs, and removes cgroup, mounts and writable layer. No error for an unknown id. */
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
  /** Cheap figures of everything, requested every few seconds. */
  stats: empty,
  /** All figures of one container, or of the pod: one at a time, so that an answer fits its message. `notFound`. */
  metrics: v.object({ containerId: v.optional(name) }),
  /** Everything in the guest, for a host that continues where another ended. Waits for containers being made. */
  list: empty,
  ping: empty,
  /** Signals all processes, kills them after `graceMs`, syncs, unmounts, powers off. Answers before it powers off. */
  shutdown: v.object({ graceMs: v.pipe(count, v.maxValue(3_600_000)) }),
} as const;

/** How a process ended. */
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
});
/** A welcome as the agent writes it. */
export type ToldWelcome = v.InferInput<typeof welcomeSchema>;
/** A welcome as the host reads it. */
export type Welcome = v.InferOutput<typeof welcomeSchema>;

const callId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0x7fff_ffff));

export const callSchema = v.object({ t: v.literal('call'), id: callId, method: shortText, params: v.unknown() });
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
