import type { Duplex } from 'node:stream';
import type { GuestText } from '#base/guest-text.ts';
import type { Phase } from '#base/phases.ts';
import type { ProcessIdentity } from '#host/process/process-identity.ts';

/**
 * The interface that every hypervisor driver implements. Terms: a *machine* is one microVM: a VMM process, its memory
 * and its devices. A *driver* makes machines; `driver.conformance.ts` is the suite that every driver passes. A
 * *template* is a booted machine frozen on disk, from which other machines are *restored* copy-on-write. The *channel*
 * is the byte stream to the agent, PID 1 of the guest. A *disk* is a file of the machine's directory or a block device
 * of the host, attached while the machine runs; a *port* is an additional byte stream, attached in the same way.
 *
 *   starting -> running -> stopping -> stopped
 *       \___________\___________\_____> failed
 *
 * `starting` owns a VMM process that has not executed guest code; `running` one whose guest runs; `stopping` one that
 * was asked to power off. `stopped` and `failed` own nothing: process, sockets and jail are gone.
 */
export const machineMoves = {
  starting: ['running', 'stopping', 'failed'],
  running: ['stopping', 'stopped', 'failed'],
  stopping: ['stopped', 'failed'],
  stopped: [],
  failed: [],
} as const satisfies Record<string, readonly string[]>;

export type MachineState = keyof typeof machineMoves;

export type Accelerator = 'kvm' | 'tcg';

/** Name of the guest's virtio-serial port that carries the channel. */
export const agentPortName = 'podvm.agent';

/** Ports that a machine can have at a time, not counting the channel. */
export const maxPorts = 30;

export interface MachineSpec {
  /** Identifier, unique on this node; `[a-z0-9-]{1,40}`. */
  readonly id: string;
  /**
   * Existing directory used by this machine only, on the file system of the images. The VMM sees no other directory.
   */
  readonly directory: string;
  /** Guest memory in `MiB`. */
  readonly memoryMiB: number;
  /** Limits on the host; none if absent. */
  readonly hostLimits?: HostLimits;
  /** Largest file that the VMM may write, in bytes: the size of its largest disk. No limit if absent. */
  readonly maxFileBytes?: number;
  readonly vcpus: number;
  /** Unprivileged user of the VMM process; the directory's sockets and disks belong to it. */
  readonly uid: number;
  /** Path of the network namespace to run in, and the tap in it for the machine's one NIC, if it has one. */
  readonly netns?: string;
  readonly tap?: { readonly name: string; readonly mac: string };
  /** Tenant of the machine; see `MachineShape.tenant`. */
  readonly tenant?: string;
  /** `restore`: from the template of this shape; `boot`: from the kernel. */
  readonly from: 'restore' | 'boot';
}

/** Limits of a VMM on its host, for guest and emulator together. */
export interface HostLimits {
  readonly memoryBytes: number;
  /** Thousandths of a core; undefined: as many cores as the machine has. */
  readonly cpuMillis: number | undefined;
  /** CPU weight under contention, in shares of 1024 for a core. */
  readonly cpuShares: number;
  /** OOM score adjustment of the VMM on the host, -1000 to 1000; undefined: the same as this process. */
  readonly oomScoreAdj?: number;
  /**
   * Existing cgroup of the host, relative to their root, below which the VMM and its helpers run; absent: their present
   * one, or podvm's own.
   */
  readonly cgroupParent?: string;
}

/**
 * Properties of a machine that its template depends on. Machines that differ in any of them need different templates.
 */
export interface MachineShape {
  readonly memoryMiB: number;
  readonly vcpus: number;
  readonly hasNic: boolean;
  /** The tenant whose machines share the template, any text; absent: all machines of the node share it. */
  readonly tenant?: string;
}

/**
 * Location of a disk's content: the name of a file in the machine's directory, with the names of files whose content
 * follows it (read-only disks; whole sectors of 512 bytes), or a block device of the host.
 */
export type DiskSource =
  | { readonly file: string; readonly followedBy?: readonly string[]; readonly device?: never }
  | { readonly device: BlockDevice; readonly file?: never; readonly followedBy?: never };

export interface BlockDevice {
  readonly major: number;
  readonly minor: number;
}

export type DiskSpec = DiskSource & {
  /** Shown to the guest as the SCSI serial; `[a-z0-9-]{1,20}`, unique in the machine. */
  readonly serial: string;
  readonly readOnly: boolean;
};

/**
 * An I/O error that the host returned to the guest, such as a full file system under a sparse file or a broken device.
 */
export interface DiskError {
  readonly serial: string;
  readonly operation: 'read' | 'write';
  readonly isFull: boolean;
}

/** Why and how a machine ended. */
export interface MachineExit {
  readonly state: 'stopped' | 'failed';
  /** The reason in one sentence: "the guest powered off", "QEMU was killed by SIGKILL". */
  readonly reason: string;
  /** Exit code or signal of the VMM. */
  readonly code: number | string;
  /** Last lines of the VMM's own log. */
  readonly tail: readonly GuestText[];
}

/** Data to find the machine, and the process of its VMM, again after a restart of the daemon; plain JSON. */
export interface MachineRecord extends ProcessIdentity {
  readonly driver: string;
  readonly id: string;
  readonly directory: string;
  readonly uid: number;
  readonly memoryMiB: number;
}

export interface Machine extends AsyncDisposable {
  readonly id: string;
  /** Guest memory in `MiB`. */
  readonly memoryMiB: number;
  readonly state: MachineState;
  readonly accelerator: Accelerator;
  readonly record: MachineRecord;
  /** Timeline of its start, in order. */
  readonly phases: readonly Phase[];
  /** Settles once, when the VMM process is gone and reaped. Never rejects. */
  readonly exited: Promise<MachineExit>;
  /**
   * File that receives the guest's serial console, if it is kept in one; the driver limits its size. Contains guest bytes:
   * never print it raw.
   */
  readonly consolePath: string;
  /** The last bytes of the guest's serial console, also after its end; none if the console is off. Guest bytes, as well. */
  consoleTail(bytes: number): Promise<Buffer>;
  /** Opens the channel. One at a time; a second call ends the first. Errors: `unavailable` when the machine is gone. */
  connect(signal: AbortSignal): Promise<Duplex>;
  /** Threads of the VMM that are the machine's processors. Errors: `unavailable`, `failedPrecondition`. */
  vcpuThreads(signal: AbortSignal): Promise<readonly number[]>;
  /** Learns its disks and ports from the VMM; needed once after `adopt`, before any is attached or detached. */
  learnDevices(signal: AbortSignal): Promise<void>;
  /** Attaches a disk to the running machine. Errors: `failedPrecondition`, `unavailable`, `alreadyExists`. */
  attachDisk(disk: DiskSpec, signal: AbortSignal): Promise<void>;
  /**
   * Detaches a disk from the guest. Afterwards all guest writes have reached the host, and the file is closed. Errors:
   * `notFound`, `timeout` (the guest does not release it), `unavailable`.
   */
  detachDisk(serial: string, signal: AbortSignal): Promise<void>;
  /**
   * Takes the content of a read-only disk away from the guest, which keeps a disk of zeroes. Afterwards the file is closed.
   * Quick, since nothing waits for the guest; can be repeated. Errors: `notFound`, `unavailable`.
   */
  emptyDisk(serial: string, signal: AbortSignal): Promise<void>;
  /** Notifies the guest that the disk has grown. Errors: `notFound`, `unavailable`, `invalid` when it has not. */
  growDisk(serial: string, sizeBytes: number, signal: AbortSignal): Promise<void>;
  /** Replaces the listener for disk errors. It is called at most once a second per disk. */
  onDiskError(listener: (error: DiskError) => void): void;
  /**
   * Adds a byte stream to the running machine, which the guest finds by its name (`[a-z0-9-]{1,20}`), and returns the
   * host's end: a socket that is connected before the guest sees the port. At most `maxPorts` are possible. Errors:
   * `invalid`, `alreadyExists`, `exhausted`, `unavailable`; no port is left then.
   */
  attachPort(name: string, signal: AbortSignal): Promise<Duplex>;
  /** Detaches a port from the guest, which may be sending on it. Errors: `notFound`, `unavailable`. */
  detachPort(name: string, signal: AbortSignal): Promise<void>;
  /**
   * Changes `hostLimits` of the running machine. Errors: `busy` when it uses more memory, `unsupported` without a host
   * cgroup, `failedPrecondition` without the parent, `unavailable`.
   */
  limitHost(limits: HostLimits): Promise<void>;
  /**
   * Gives the VMM and its helpers the CPU weight of a start, which is podvm's and not their pod's, or that of their pod
   * again. A machine has the former from its beginning, and the latter after `adopt`. Changes nothing without
   * `HostLimits.cgroupParent`, without a host cgroup, and with cgroups version 2. A call after an error repeats what
   * failed. Errors: `internal`, `unavailable`.
   */
  setStartWeight(isSet: boolean): Promise<void>;
  /**
   * Places a host process that works for this machine under the machine's limits and raises the memory limit by
   * `memoryBytes`. Disposing the result lowers it again. Does nothing without a host cgroup. Errors: `internal`.
   */
  confine(pid: number, memoryBytes: number): Promise<AsyncDisposable>;
  /**
   * Discards what an emulator has translated of the guest's code, as soon as one of the guest's processors goes on, and gives
   * the memory of it back to the host. What the guest needs is translated again. Does nothing with KVM, nor with a machine of a
   * podvm that could not do this.
   */
  discardTranslations(): Promise<void>;
  /** Freezes the VMM with its guest, or lets it run again. A frozen one answers nothing; its date is right afterwards. */
  freezeVmm(isFrozen: boolean): Promise<void>;
  /** Asks the guest to power off (ACPI) and waits. Kills the VMM when `signal` aborts first. */
  stop(signal: AbortSignal): Promise<MachineExit>;
  /** Kills the VMM and waits until it is gone. Disposing does the same. */
  kill(): Promise<MachineExit>;
}

export interface MachineDriver {
  readonly name: string;
  /**
   * Starts a machine and returns once its VMM runs guest code; the agent may not answer yet.
   * Errors: `failedPrecondition` (QEMU, kernel or tap missing), `notFound` (no template of that shape), `exhausted`
   * (memory, disk), `internal` with the VMM's last lines. After an error or an abort only the directory is left.
   */
  start(spec: MachineSpec, signal: AbortSignal): Promise<Machine>;
  /** True when a machine of that shape can be restored. */
  hasTemplate(shape: MachineShape): Promise<boolean>;
  /** Returns the time at which the template of that shape was made; undefined when there is none. */
  templateMadeAt(shape: MachineShape): Promise<Date | undefined>;
  /**
   * Makes the template of the spec's shape: boots a machine, lets `exercise` use it, then freezes it. The machine and
   * the content of its directory are removed; an existing template is replaced. Errors: as `start`, and those of
   * `exercise`; no template is made then.
   */
  makeTemplate(spec: MachineSpec, exercise: (machine: Machine) => Promise<void>, signal: AbortSignal): Promise<void>;
  /**
   * Takes over a machine that an earlier process of ours started, except for its devices (`learnDevices`); one that was
   * frozen runs again. Returns undefined if it no longer runs.
   */
  adopt(record: MachineRecord, signal: AbortSignal): Promise<Machine | undefined>;
  /**
   * Removes traces of a VMM outside its directory, after it was killed together with its starter. `cgroupParent`: that
   * of its limits.
   */
  sweep(id: string, cgroupParent?: string): Promise<void>;
}
