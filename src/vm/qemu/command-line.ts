import { agentPortName, maxPorts, type Accelerator } from '../driver.ts';

/**
 * QEMU's arguments as data: one object per switch, named as QEMU names it. Pure. A machine that is restored has the same
 * devices, in the same order, as the one that was frozen: only where its memory and its first instruction come from
 * differ.
 */
export interface Switch {
  readonly name: string;
  /** Implied first value, as in `-device virtio-rng-device,...`. */
  readonly type?: string;
  readonly options?: Readonly<Record<string, string | number | boolean>>;
  /** For switches whose value is no option list; commas are kept as they are. */
  readonly value?: string;
}

/**
 * How guest code comes to run. `boot`: from the kernel. `freeze`: the same, with the memory in a file that outlives the
 * VMM. `restore`: memory and devices come from a template; what is written stays private to this VMM.
 */
export type Start =
  | { readonly kind: 'boot' | 'freeze'; readonly kernelArguments: readonly string[] }
  | { readonly kind: 'restore' };

/** Where things are inside the jail. */
export interface InsidePaths {
  readonly kernel: string;
  readonly initramfs: string;
  /** Memory file of a machine that will be frozen. */
  readonly memory: string;
  /** Memory file of the template. */
  readonly templateMemory: string;
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
  /** False: what the guest says on its serial console goes nowhere. The guest itself sees no difference. */
  readonly hasConsole?: boolean;
}

/** Names of the sockets in the machine's `sockets` directory. */
export const socketNames = { qmp: 'qmp', agent: 'agent', console: 'console' } as const;

/** QEMU's name of the agent's port in its events. */
export const agentPortId = 'agent-port';

/** Ports of the virtio-serial bus: number 0, which only a console may have, the agent's, and those attached later. */
const maxSerialPorts = 2 + maxPorts;

/** `-M microvm,...` and so on; the program's name is not included. */
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

function base({ id, accelerator, memoryMiB, vcpus }: CommandLineInput): Switch[] {
  return [
    // Why these: with the legacy PIC and PIT left on a third of emulated boots die; rtc=off doubles boot time; without
    // ACPI a stock kernel finds no virtio-mmio device (docs/architecture.md, "The guest").
    {
      name: 'machine',
      type: 'microvm',
      options: { pic: false, pit: false, rtc: true, acpi: true, 'memory-backend': 'ram', ...secretMemory },
    },
    accelerate(accelerator),
    processor(accelerator),
    { name: 'smp', value: String(vcpus) },
    { name: 'm', value: `${memoryMiB}M` },
    { name: 'global', value: 'virtio-mmio.force-legacy=false' },
    ...kicks(accelerator),
    // QEMU would announce the template's MAC to the network, five times, once it is restored. With no rounds a NIC that
    // also has its guest announce itself loses its timer, and crashes QEMU when it is reset: see `nicFeatures`.
    { name: 'global', value: 'migration.announce-rounds=0' },
    { name: 'name', value: id },
    { name: 'nodefaults' },
    { name: 'no-user-config' },
    { name: 'no-reboot' },
    { name: 'display', value: 'none' },
    { name: 'S' }, // no guest code before the console and the control channel are ours
    {
      name: 'sandbox',
      value: 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    },
  ];
}

/**
 * The kernel's ksmd does not merge pages of guests: a tenant could tell by the time of a write what another's memory
 * holds. Core dumps leave guests' memory out, should a core be written in spite of the jail's limit.
 */
const secretMemory = { 'mem-merge': false, 'dump-guest-core': false };

/**
 * Translated code is memory of the VMM that the guest makes it use, and QEMU's own limit grows with the guest's memory, to
 * 1 GiB. The first container of a pod takes 45 MiB of it; a third of that makes everything three times slower.
 */
const translatedCodeMiB = 96;

function accelerate(accelerator: Accelerator): Switch {
  if (accelerator === 'kvm') return { name: 'accel', type: accelerator };
  return { name: 'accel', type: accelerator, options: { 'tb-size': translatedCodeMiB } };
}

/**
 * QEMU moves a byte at a time where a guest uses `rep movsb` or `rep stosb`. Kernels and C libraries use them where the
 * processor says that they are fast; without these words they move eight bytes or more at a time.
 */
const noFastStrings = { erms: false, fsrm: false, fzrm: false, fsrs: false, fsrc: false };

function processor(accelerator: Accelerator): Switch {
  if (accelerator === 'kvm') return { name: 'cpu', value: 'host' };
  return { name: 'cpu', type: 'max', options: noFastStrings };
}

/**
 * By KVM a driver's notification wakes the thread of the devices. An emulated processor is a thread that can do itself
 * what is asked for, and the devices' thread has a descriptor less to watch for each of their hundred queues.
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
      // A private mapping of a file that this user may only read: QEMU's docs/system, `rom=off` keeps it writable memory.
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
 * What comes by the tap is for this machine: a NIC that filters nothing spares its driver a command for each address.
 * Without `guest_announce` QEMU keeps the timer of announcements that it makes with the device (`virtio_net_post_load_device`
 * frees it where there are no rounds, `virtio_net_reset` uses it).
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

/** A comma inside a value is doubled, as QEMU's option syntax asks. */
function text(value: string | number | boolean): string {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return String(value).replaceAll(',', ',,');
}

export interface KernelArgumentsInput {
  readonly accelerator: Accelerator;
  /** The host's TSC in `kHz`; an emulated guest sees the same counter and cannot measure it reliably. */
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
    ...(emulated && tscKHz !== undefined ? [`tsc_early_khz=${tscKHz}`] : []),
  ];
}
