import * as v from 'valibot';
import { count, etcFile, list, name, serial, shortText, textTable, userId } from './fields.ts';
import { limits } from './limits.ts';

/** Parameters of the pod as a whole: identity, network, limits, volumes. */

export const resources = v.object({
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

/** The same for a cgroup with processes: absent limits stay, `none` removes one. */
export const changedResources = v.object({
  ...resources.entries,
  memoryLimitBytes: v.optional(v.union([count, v.literal('none')])),
  cpuQuotaUs: v.optional(v.union([count, v.literal('none')])),
});
export type ChangedResources = v.InferOutput<typeof changedResources>;

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

export const configure = v.object({
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

export const connect = v.object({
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

export const createVolume = v.object({
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
