import * as v from 'valibot';
import {
  absolutePath,
  base64,
  cells,
  count,
  list,
  name,
  path,
  processArgs,
  processStrings,
  serial,
  streamId,
  userId,
} from './fields.ts';
import { resources } from './pod-params.ts';

/** Parameters of a container, and of commands in it. */

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
  /** Capabilities that a non-root user keeps when it runs a program: ambient and inheritable. */
  ambientCapabilities: v.optional(list(capability, 64)),
  noNewPrivileges: v.boolean(),
  rlimits: list(rlimit, 16),
  oomScoreAdj: v.optional(v.pipe(v.number(), v.integer(), v.minValue(-1000), v.maxValue(1000))),
});
export type ContainerProcess = v.InferOutput<typeof containerProcess>;

/** Stream numbers; `0`: none, the process gets /dev/null. With a tty all output is on `stdout`. */
export const stdio = v.object({ stdin: streamId, stdout: streamId, stderr: streamId });
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

export const createContainer = v.object({
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
  /** Whether it has pids of its own in a pod whose containers share theirs. Default: as the pod. */
  ownPidNamespace: v.optional(v.boolean()),
  /** Id of a running container whose pids it shares, whatever the pod has. */
  pidNamespaceOf: v.optional(name),
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
  /** OCI's `linux.seccomp` object, which crun checks, or a program for seccomp(2) in base64; `null`: unconfined. */
  seccomp: v.nullable(v.union([base64, v.record(v.string(), v.unknown())])),
  /** Absent: OCI's defaults. */
  maskedPaths: v.optional(list(absolutePath)),
  readonlyPaths: v.optional(list(absolutePath)),
  resources,
  /** Path of the termination log in the container; absent: there is none. */
  terminationLogPath: v.optional(absolutePath),
});
export type ContainerParams = v.InferOutput<typeof createContainer>;

export const startExec = v.object({
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
