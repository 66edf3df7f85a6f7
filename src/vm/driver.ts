import type { Duplex } from 'node:stream';
import type { GuestText } from '#base/guest-text.ts';
import type { Phase } from '#base/phases.ts';

/**
 * What a hypervisor must offer. Words: a *machine* is one microVM: a VMM process, its memory, its devices. A *driver*
 * makes machines; `driver.conformance.ts` is the suite every driver passes. A *template* is a booted machine frozen on
 * disk, from which others are *restored*, copy on write. The *channel* is the byte stream to the
 * agent, PID 1 of the guest. A *disk* is a file of the machine's directory or a block device of the host, attached while
 * it runs; a *port* one more byte stream, the same way.
 *
 *   starting -> running -> stopping -> stopped
 *       \___________\___________\_____> failed
 *
 * `starting` owns a VMM process that has not executed guest code; `running` one whose guest runs; `stopping` one that
 * was asked to power off; `stopped` and `failed` own nothing: process, sockets and jail are gone.
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

/** Of a machine at a time, beside the channel's own. */
export const maxPorts = 30;

export interface MachineSpec {
  /** Unique on this node; `[a-z0-9-]{1,40}`. */
  readonly id: string;
  /** Directory of this machine alone, on the file system of the images; the only place its VMM sees. Exists. */
  readonly directory: string;
  /** Guest memory in `MiB`. */
  readonly memoryMiB: number;
  /** Absent: none. */
  readonly hostLimits?: HostLimits;
  /** The largest file that its VMM may write, in bytes: that of its disks; absent: no limit. */
  readonly maxFileBytes?: number;
  readonly vcpus: number;
  /** Unprivileged user of the VMM process; the directory's sockets and disks belong to it. */
  readonly uid: number;
  /** Network namespace to run in (path), and the tap in it that is the machine's one NIC, if it has one. */
  readonly netns?: string;
  readonly tap?: { readonly name: string; readonly mac: string };
  /** Of its shape; see there. */
  readonly tenant?: string;
  /** `restore`: from the template of this shape; `boot`: from the kernel. */
  readonly from: 'restore' | 'boot';
}

/** What a VMM may use of its host, guest and emulator together. */
export interface HostLimits {
  readonly memoryBytes: number;
  /** Thousandths of a core; undefined: as many cores as its machine has. */
  readonly cpuMillis: number | undefined;
  /** Its part of the processor when there is not enough for all, in shares of 1024 for a core. */
  readonly cpuShares: number;
  /** How ready the host's kernel is to kill it for lack of memory, -1000 to 1000; undefined: as ready as to kill us. */
  readonly oomScoreAdj?: number;
}

/** What a template is made for: machines that differ in any of it need another one. */
export interface MachineShape {
  readonly memoryMiB: number;
  readonly vcpus: number;
  readonly hasNic: boolean;
  /** Whose machines alone share the template, any text; absent: all machines of the node do. */
  readonly tenant?: string;
}

/** Where a disk's content is: a file of the machine's directory, by name, or a block device of the host. */
export type DiskSource =
  | { readonly file: string; readonly device?: never }
  | { readonly device: BlockDevice; readonly file?: never };

export interface BlockDevice {
  readonly major: number;
  readonly minor: number;
}

export type DiskSpec = DiskSource & {
  /** Shown to the guest as the SCSI serial; `[a-z0-9-]{1,20}`, unique in the machine. */
  readonly serial: string;
  readonly readOnly: boolean;
};

/** What the host could not do for the guest, which was told so: a full disk under a sparse file, a broken device. */
export interface DiskError {
  readonly serial: string;
  readonly operation: 'read' | 'write';
  readonly isFull: boolean;
}

/** Why and how a machine ended. */
export interface MachineExit {
  readonly state: 'stopped' | 'failed';
  /** One sentence: "the guest powered off", "QEMU was killed by SIGKILL". */
  readonly reason: string;
  /** Exit code or signal of the VMM. */
  readonly code: number | string;
  /** Last lines of the VMM's own log. */
  readonly tail: readonly GuestText[];
}

/** What is needed to find the machine again after the daemon's restart; plain JSON. */
export interface MachineRecord {
  readonly driver: string;
  readonly id: string;
  readonly directory: string;
  readonly pid: number;
  /** Start time of `pid` in clock ticks since boot, so that a reused pid is not taken for ours. */
  readonly startTicks: string;
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
  /** Settles once, when the VMM process is gone and reaped; never rejects. */
  readonly exited: Promise<MachineExit>;
  /** File that receives the guest's serial console (bounded by the driver). Guest bytes: never print raw. */
  readonly consolePath: string;
  /** Opens the channel. One at a time; a second call ends the first. Errors: `unavailable` when the machine is gone. */
  connect(signal: AbortSignal): Promise<Duplex>;
  /** Attaches a disk to the running machine. Errors: `failedPrecondition`, `unavailable`, `alreadyExists`. */
  attachDisk(disk: DiskSpec, signal: AbortSignal): Promise<void>;
  /**
   * Takes it from the guest; afterwards all that the guest has written is with the host, and nobody of ours has it open.
   * Errors: `notFound`, `timeout` (the guest keeps it), `unavailable`.
   */
  detachDisk(serial: string, signal: AbortSignal): Promise<void>;
  /** Tells the guest that the disk is larger now. Errors: `notFound`, `unavailable`, `invalid` when it is not. */
  growDisk(serial: string, sizeBytes: number, signal: AbortSignal): Promise<void>;
  /** Replaces the one who hears of the disks' errors, at most once a second for each disk. */
  onDiskError(listener: (error: DiskError) => void): void;
  /**
   * Gives the running machine one more byte stream, which the guest finds by its name (`[a-z0-9-]{1,20}`), and returns
   * our end: a socket, connected before the guest sees the port. At most `maxPorts`. Errors: `invalid`, `alreadyExists`,
   * `exhausted`, `unavailable`; there is no port then.
   */
  attachPort(name: string, signal: AbortSignal): Promise<Duplex>;
  /** Takes it from the guest, in the middle of what it sends perhaps. Errors: `notFound`, `unavailable`. */
  detachPort(name: string, signal: AbortSignal): Promise<void>;
  /**
   * Changes `hostLimits` of the running machine. Errors: `busy` when it uses more memory, `unsupported` where the host
   * gives us no cgroup, `unavailable`.
   */
  limitHost(limits: HostLimits): Promise<void>;
  /**
   * Puts a process of the host that works for this machine under the same limits, which have so many bytes of memory more
   * until what is returned is disposed of. Does nothing where the host gives us no cgroup. Errors: `internal`.
   */
  confine(pid: number, memoryBytes: number): Promise<AsyncDisposable>;
  /** Asks the guest to power off (ACPI) and waits; kills the VMM when `signal` aborts first. */
  stop(signal: AbortSignal): Promise<MachineExit>;
  /** Ends the VMM at once and waits until it is gone. Dispose does the same. */
  kill(): Promise<MachineExit>;
}

export interface MachineDriver {
  readonly name: string;
  /**
   * Starts a machine and returns once its VMM runs guest code (not: once the agent answers).
   * Errors: `failedPrecondition` (QEMU, kernel or tap missing), `notFound` (no template of that shape), `exhausted`
   * (memory, disk), `internal` with the VMM's last lines. On any error or abort nothing of it is left but the directory.
   */
  start(spec: MachineSpec, signal: AbortSignal): Promise<Machine>;
  /** True when a machine of that shape can be restored. */
  hasTemplate(shape: MachineShape): Promise<boolean>;
  /**
   * Makes the template of the spec's shape: boots a machine, lets `exercise` use it, freezes it. The machine is gone
   * afterwards, and so is its directory's content; an existing template is replaced. Errors: as `start`, and those of
   * `exercise`; no template is made then.
   */
  makeTemplate(spec: MachineSpec, exercise: (machine: Machine) => Promise<void>, signal: AbortSignal): Promise<void>;
  /** Takes over a machine that another process of ours started; undefined if it no longer runs. */
  adopt(record: MachineRecord, signal: AbortSignal): Promise<Machine | undefined>;
  /** Removes what a VMM that was killed with its starter left on the host, outside its directory. */
  sweep(id: string): Promise<void>;
}
