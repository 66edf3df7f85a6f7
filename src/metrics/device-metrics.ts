import type { MetricFigures } from '#sandbox/figures/sandbox-stats.ts';
import { type GuestSubject, type MetricRow, rowsOf, secondsOfMs, type Unit } from './metric-row.ts';

const { each } = rowsOf<GuestSubject>();

type Interface = MetricFigures['interfaces'][number];
type Device = MetricFigures['devices'][number];
type Disk = NonNullable<Device['disk']>;
type Layer = NonNullable<MetricFigures['layer']>;
type Type = 'counter' | 'gauge';

const sectorBytes = 512;
const pathOf = (device: string): string => `/dev/${device}`;

/** Makes a metric by interface of the pod; containers have no interfaces of their own. */
const ofInterfaces = (unit: Unit, about: string, value: (counters: Interface) => number): MetricRow =>
  each('counter', ['interface'], unit, about, ({ figures }) =>
    figures.interfaces.map((counters) => ({ labels: [counters.name], value: value(counters) })),
  );

const ofDevices = (unit: Unit, about: string, value: (device: Device) => number): MetricRow =>
  each('counter', ['device'], unit, about, ({ figures }) =>
    figures.devices.map((device) => ({ labels: [pathOf(device.name)], value: value(device) })),
  );

/** Makes a metric of the pod only: the kernel counts by disk, and the disks are the machine's. */
const ofDisks = (type: Type, unit: Unit, about: string, value: (disk: Disk) => number): MetricRow =>
  each(type, ['device'], unit, about, ({ figures }) =>
    figures.devices.flatMap(({ name, disk }) =>
      disk === undefined ? [] : [{ labels: [pathOf(name)], value: value(disk) }],
    ),
  );

/** Makes a metric of a container whose layer is on a disk. */
const ofLayer = (unit: Unit, about: string, value: (layer: Layer) => number): MetricRow =>
  each('gauge', ['device'], unit, about, ({ figures: { layer } }) =>
    layer === undefined ? [] : [{ labels: [pathOf(layer.device)], value: value(layer) }],
  );

const operations = ({ figures }: GuestSubject) =>
  figures.devices.flatMap(({ name, major, minor, readBytes, writtenBytes, discardedBytes }) =>
    Object.entries({ Read: readBytes, Write: writtenBytes, Discard: discardedBytes }).map(([operation, value]) => ({
      labels: [pathOf(name), String(major), String(minor), operation],
      value,
    })),
  );

/**
 * cAdvisor's metrics of network, disks, and the file system that a container writes to; and podvm's of refused packets.
 */
export const deviceMetrics = {
  container_network_receive_bytes_total: ofInterfaces('bytes', 'Data received', ({ rxBytes }) => rxBytes),
  container_network_receive_packets_total: ofInterfaces('count', 'Packets received', ({ rxPackets }) => rxPackets),
  container_network_receive_packets_dropped_total: ofInterfaces(
    'count',
    'Packets dropped while receiving',
    ({ rxDropped }) => rxDropped,
  ),
  container_network_receive_errors_total: ofInterfaces('count', 'Errors while receiving', ({ rxErrors }) => rxErrors),
  container_network_transmit_bytes_total: ofInterfaces('bytes', 'Data sent', ({ txBytes }) => txBytes),
  container_network_transmit_packets_total: ofInterfaces('count', 'Packets sent', ({ txPackets }) => txPackets),
  container_network_transmit_packets_dropped_total: ofInterfaces(
    'count',
    'Packets dropped while sending',
    ({ txDropped }) => txDropped,
  ),
  container_network_transmit_errors_total: ofInterfaces('count', 'Errors while sending', ({ txErrors }) => txErrors),

  podvm_network_refused_packets_total: each(
    'counter',
    ['reason'],
    'count',
    'Packets of the pod that the node dropped: forged, to loopback, of too many connections, or to its services',
    ({ dropped = new Map<string, number>() }) => [...dropped].map(([reason, value]) => ({ labels: [reason], value })),
  ),

  container_fs_usage_bytes: ofLayer(
    'bytes',
    'Size of what it has written outside of its volumes',
    ({ bytes }) => bytes,
  ),
  container_fs_limit_bytes: ofLayer(
    'bytes',
    'Limit on what it may write outside of its volumes',
    ({ limitBytes }) => limitBytes,
  ),
  container_fs_inodes_total: ofLayer('count', 'Files that its file system can hold', ({ totalInodes }) => totalInodes),
  container_fs_inodes_free: ofLayer('count', 'Files that can still be created', ({ freeInodes }) => freeInodes),

  container_fs_reads_bytes_total: ofDevices('bytes', 'Data read', ({ readBytes }) => readBytes),
  container_fs_reads_total: ofDevices('count', 'Reads', ({ reads }) => reads),
  container_fs_sector_reads_total: ofDevices('count', 'Sectors of 512 bytes read', ({ readBytes }) =>
    Math.floor(readBytes / sectorBytes),
  ),
  container_fs_writes_bytes_total: ofDevices('bytes', 'Data written', ({ writtenBytes }) => writtenBytes),
  container_fs_writes_total: ofDevices('count', 'Writes', ({ writes }) => writes),
  container_fs_sector_writes_total: ofDevices('count', 'Sectors of 512 bytes written', ({ writtenBytes }) =>
    Math.floor(writtenBytes / sectorBytes),
  ),
  container_blkio_device_usage_total: each(
    'counter',
    ['device', 'major', 'minor', 'operation'],
    'bytes',
    'Data read, written and discarded',
    operations,
  ),

  container_fs_reads_merged_total: ofDisks(
    'counter',
    'count',
    'Reads merged with others',
    ({ mergedReads }) => mergedReads,
  ),
  container_fs_writes_merged_total: ofDisks(
    'counter',
    'count',
    'Writes merged with others',
    ({ mergedWrites }) => mergedWrites,
  ),
  container_fs_read_seconds_total: ofDisks('counter', 'seconds', 'Time spent on reads', ({ readMs }) =>
    secondsOfMs(readMs),
  ),
  container_fs_write_seconds_total: ofDisks('counter', 'seconds', 'Time spent on writes', ({ writeMs }) =>
    secondsOfMs(writeMs),
  ),
  container_fs_io_current: ofDisks('gauge', 'count', 'Requests in progress', ({ inFlight }) => inFlight),
  container_fs_io_time_seconds_total: ofDisks('counter', 'seconds', 'Time with a request in progress', ({ busyMs }) =>
    secondsOfMs(busyMs),
  ),
  container_fs_io_time_weighted_seconds_total: ofDisks(
    'counter',
    'seconds',
    'Time spent on all requests, weighted by their number',
    ({ queueMs }) => secondsOfMs(queueMs),
  ),
} as const satisfies Record<string, MetricRow>;
