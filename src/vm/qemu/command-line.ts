import { agentPortName, maxPorts, type Accelerator } from '../driver.ts';

/**
 * QEMU's arguments as data: one object per switch, with QEMU's names. Pure functions. A restored machine has the same
 * devices in the same order as the frozen one; only the sources of its memory and of its first instruction differ.
 */
export interface Switch {
  readonly name: string;
  /** Implied first value, as in `-device virtio-rng-device,...`. */
  readonly type?: string;
  readonly options?: Readonly<Record<string, string | number | boolean>>;
  /** Value of a switch that takes no option list; commas are not doubled. */
  readonly value?: string;
}

/**
 * Start of the guest. `boot`: from the kernel. `freeze`: from the kernel, with the memory in a file that outlives the
 * VMM. `restore`: memory and devices come from a template; writes stay private to this VMM.
 */
export type Start =
  | { readonly kind: 'boot' | 'freeze'; readonly kernelArguments: readonly string[] }
  | { readonly kind: 'restore' };

/** Paths inside the jail. */
export interface InsidePaths {
  readonly kernel: string;
  readonly initramfs: string;
  /** Memory file of a machine that will be frozen. */
  readonly memory: string;
  /** Memory file of the template. */
  readonly templateMemory: string;
  /** Plugin that discards translations. */
  readonly plugin: string;
  /** Directory of the sockets QEMU listens on. */
  readonly sockets: string;
}

export interface CommandLineInput {
  readonly id: string;
  readonly accelerator: Accelerator;
  readonly memoryMiB: number;
  readonly vcpus: number;
  readonly paths: InsidePaths;
  readonly start: Start;
  readonly tap?: { readonly name: string; readonly mac: string } | undefined;
  /** False discards the output of the guest's serial console. The guest itself sees no difference. */
  readonly hasConsole?: boolean;
  /** Whether an emulator can discard what it has translated. */
  readonly hasPlugin?: boolean;
}

/** Names of the sockets in the machine's `sockets` directory. */
export const socketNames = { qmp: 'qmp', agent: 'agent', console: 'console' } as const;

/** QEMU's name of the agent's port in its events. */
export const agentPortId = 'agent-port';

/** Ports of the virtio-serial bus: number 0 (reserved for a console), the agent's, and those attached later. */
const maxSerialPorts = 2 + maxPorts;

/** Returns `-M microvm,...` and all other arguments, without the program's name. */
export function qemuArguments(input: CommandLineInput): string[] {
  return qemuSwitches(input).flatMap(render);
}

export function qemuSwitches(input: CommandLineInput): Switch[] {
  return [
    ...base(input),
    memory(input),
    ...start(input),
    ...control(input),
    ...serial(input),
    ...storageAndEntropy(),
    ...network(input),
  ];
}

function base({ id, accelerator, memoryMiB, vcpus, paths, hasPlugin }: CommandLineInput): Switch[] {
  return [
    // With the legacy PIC and PIT a third of emulated boots die; rtc=off doubles boot time; without ACPI a stock kernel
    // finds no virtio-mmio device (docs/architecture.md, "The guest").
    {
      name: 'machine',
      type: 'microvm',
      options: { pic: false, pit: false, rtc: true, acpi: true, 'memory-backend': 'ram', ...secretMemory },
    },
    accelerate(accelerator),
    ...(accelerator === 'tcg' && hasPlugin ? [discarding(paths)] : []),
    processor(accelerator),
    { name: 'smp', value: String(vcpus) },
    { name: 'm', value: `${memoryMiB}M` },
    { name: 'global', value: 'virtio-mmio.force-legacy=false' },
    ...kicks(accelerator),
    // After a restore QEMU would announce the template's MAC to the network five times. With no rounds, a NIC whose
    // guest also announces itself loses its timer and crashes QEMU when it is reset: see `nicFeatures`.
    { name: 'global', value: 'migration.announce-rounds=0' },
    { name: 'name', value: id },
    { name: 'nodefaults' },
    { name: 'no-user-config' },
    { name: 'no-reboot' },
    { name: 'display', value: 'none' },
    { name: 'S' }, // no guest code before console and control channel are connected
    {
      name: 'sandbox',
      value: 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    },
  ];
}

/**
 * Excludes guest memory from merging by ksmd: the time of a write would tell a tenant what another's memory holds. Core
 * dumps also exclude it, in case one is written in spite of the jail's limit.
 */
const secretMemory = { 'mem-merge': false, 'dump-guest-core': false };

/**
 * Size of the translation cache. It is VMM memory whose use the guest controls, and QEMU's own limit grows with the
 * guest's memory, up to 1 GiB. The first container of a pod takes 45 MiB; a third of that makes everything three times
 * slower.
 */
const translatedCodeMiB = 96;

function accelerate(accelerator: Accelerator): Switch {
  if (accelerator === 'kvm') return { name: 'accel', type: accelerator };
  return { name: 'accel', type: accelerator, options: { 'tb-size': translatedCodeMiB } };
}

/** Gives memory of translations back when the daemon wants it (`plugin/discard-translations.c`). */
const discarding = ({ plugin }: InsidePaths): Switch => ({
  name: 'plugin',
  type: plugin,
  options: { bytes: translatedCodeMiB * 1024 * 1024 },
});

/**
 * Disables fast string instructions. QEMU emulates `rep movsb` and `rep stosb` byte by byte, and kernels and C
 * libraries use them when the processor reports them as fast. Without these flags they move eight bytes or more at a
 * time.
 */
const noFastStrings = { erms: false, fsrm: false, fzrm: false, fsrs: false, fsrc: false };

/**
 * Leaves out of the host's processor its virtualisation and its performance counters. Pods have no use for machines of
 * their own, and KVM's nested code is a large attack surface. QEMU also writes the registers of both at each start and
 * restore, and aborts when KVM refuses one, as hosts that are machines themselves do. `migratable`, QEMU's default,
 * hides the invariant TSC, with which QEMU would not freeze a machine; guests then use kvm-clock.
 */
const hiddenFromGuests = { migratable: true, vmx: false, svm: false, pmu: false };

function processor(accelerator: Accelerator): Switch {
  if (accelerator === 'kvm') return { name: 'cpu', type: 'host', options: hiddenFromGuests };
  return { name: 'cpu', type: 'max', options: noFastStrings };
}

/**
 * Disables `ioeventfd` under emulation. With KVM a driver's notification wakes the device thread; an emulated processor
 * is a thread that can do the work itself, and the device thread then watches one descriptor less for each of about a
 * hundred queues.
 */
function kicks(accelerator: Accelerator): Switch[] {
  return accelerator === 'kvm' ? [] : [{ name: 'global', value: 'virtio-mmio.ioeventfd=false' }];
}

function memory({ memoryMiB, paths, start: { kind } }: CommandLineInput): Switch {
  const options = { id: 'ram', size: `${memoryMiB}M` };
  const file = 'memory-backend-file';
  switch (kind) {
    case 'boot':
      return { name: 'object', type: 'memory-backend-ram', options };
    case 'freeze':
      return { name: 'object', type: file, options: { ...options, 'mem-path': paths.memory, share: true } };
    case 'restore': {
      // A private mapping of a file that this user may only read; `rom=off` keeps the memory writable (QEMU's
      // docs/system).
      const copyOnWrite = { 'mem-path': paths.templateMemory, share: false, readonly: true, rom: false };
      return { name: 'object', type: file, options: { ...options, ...copyOnWrite } };
    }
  }
}

function start({ paths, start: how }: CommandLineInput): Switch[] {
  if (how.kind === 'restore') return [{ name: 'incoming', value: 'defer' }];
  return [
    { name: 'kernel', value: paths.kernel },
    { name: 'initrd', value: paths.initramfs },
    { name: 'append', value: how.kernelArguments.join(' ') },
  ];
}

function control({ paths, hasConsole = true }: CommandLineInput): Switch[] {
  const monitor = [listeningSocket('qmp', paths), { name: 'mon', options: { chardev: 'qmp', mode: 'control' } }];
  if (!hasConsole) return [...monitor, { name: 'serial', value: 'null' }];
  return [...monitor, listeningSocket('console', paths), { name: 'serial', value: 'chardev:console' }];
}

function serial({ paths }: CommandLineInput): Switch[] {
  return [
    { name: 'device', type: 'virtio-serial-device', options: { id: 'serial', max_ports: maxSerialPorts } },
    listeningSocket('agent', paths),
    {
      name: 'device',
      type: 'virtserialport',
      options: { id: agentPortId, bus: 'serial.0', nr: 1, chardev: 'agent', name: agentPortName },
    },
  ];
}

function storageAndEntropy(): Switch[] {
  return [
    { name: 'device', type: 'virtio-scsi-device', options: { id: 'scsi' } },
    { name: 'object', type: 'rng-builtin', options: { id: 'entropy' } },
    { name: 'device', type: 'virtio-rng-device', options: { rng: 'entropy' } },
  ];
}

function network({ tap }: CommandLineInput): Switch[] {
  if (tap === undefined) return [];
  return [
    {
      name: 'netdev',
      type: 'tap',
      options: { id: 'net', ifname: tap.name, script: 'no', downscript: 'no', vnet_hdr: true },
    },
    {
      name: 'device',
      type: 'virtio-net-device',
      options: { id: 'nic', netdev: 'net', mac: tap.mac, ...nicFeatures },
    },
  ];
}

/**
 * Features of the NIC. All traffic on the tap is for this machine, so filtering is off, which spares its driver a
 * command per address. `guest_announce` is off because QEMU otherwise uses a freed timer: `virtio_net_post_load_device`
 * frees it where there are no rounds, and `virtio_net_reset` uses it.
 */
const nicFeatures = {
  ctrl_mac_addr: false,
  ctrl_rx: false,
  ctrl_rx_extra: false,
  ctrl_vlan: false,
  guest_announce: false,
};

function listeningSocket(id: keyof typeof socketNames, paths: InsidePaths): Switch {
  return {
    name: 'chardev',
    type: 'socket',
    options: { id, path: `${paths.sockets}/${socketNames[id]}`, server: true, wait: false },
  };
}

function render(part: Switch): string[] {
  if (part.value !== undefined) return [`-${part.name}`, part.value];
  const options = Object.entries(part.options ?? {}).map(([key, value]) => `${key}=${text(value)}`);
  const words = part.type === undefined ? options : [part.type, ...options];
  return words.length === 0 ? [`-${part.name}`] : [`-${part.name}`, words.join(',')];
}

/** Doubles commas inside a value, as QEMU's option syntax requires. */
function text(value: string | number | boolean): string {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return String(value).replaceAll(',', ',,');
}

/**
 * Entries of the kernel's hash tables of names, inodes and mounts: those of a machine with 256 MiB. The kernel would choose
 * more with the nominal memory, 24 MiB for 12 GiB. As each entry is anywhere in its table, nearly each name that a pod uses
 * would then change a page of its own.
 */
const hashTables = ['dhash_entries=32768', 'ihash_entries=16384', 'mhash_entries=512', 'mphash_entries=512'];

/**
 * Leaves sent frames to be freed by the next one, and not by an interrupt for which an emulated processor leaves its code
 * (docs/networks.md). With KVM an interrupt costs little, and shorter queues are worth it.
 */
const noInterruptsOfSentFrames = 'virtio_net.napi_tx=0';

export interface KernelArgumentsInput {
  readonly accelerator: Accelerator;
  /** The host's TSC frequency in `kHz`. An emulated guest sees the same counter and cannot measure it reliably. */
  readonly tscKHz: number | undefined;
}

export function kernelArguments({ accelerator, tscKHz }: KernelArgumentsInput): string[] {
  const emulated = accelerator === 'tcg';
  return [
    'console=ttyS0',
    'quiet',
    'reboot=t',
    'panic=-1',
    'no_timer_check',
    'tsc=reliable',
    ...hashTables,
    ...(emulated ? [noInterruptsOfSentFrames] : []),
    ...(emulated && tscKHz !== undefined ? [`tsc_early_khz=${tscKHz}`] : []),
  ];
}
