import type { MetricFigures } from '#sandbox/guest-calls.ts';
import { each, type MetricRow, secondsOfMs, type Subject } from './metric-row.ts';

type Interface = MetricFigures['interfaces'][number];
type Device = MetricFigures['devices'][number];
type Disk = NonNullable<Device['disk']>;
type Layer = NonNullable<MetricFigures['layer']>;
type Type = Parameters<typeof each>[0];

const sectorBytes = 512;
const pathOf = (device: string): string => `/dev/${device}`;

/** By interface of the pod: its containers have none of their own. */
const ofInterfaces = (help: string, value: (counters: Interface) => number): MetricRow =>
  each('COUNTER', ['interface'], help, ({ figures }) =>
    figures.interfaces.map((counters) => ({ labels: [counters.name], value: value(counters) })),
  );

const ofDevices = (help: string, value: (device: Device) => number): MetricRow =>
  each('COUNTER', ['device'], help, ({ figures }) =>
    figures.devices.map((device) => ({ labels: [pathOf(device.name)], value: value(device) })),
  );

/** The pod's alone: the kernel counts these by disk, and the disks are the machine's. */
const ofDisks = (type: Type, help: string, value: (disk: Disk) => number): MetricRow =>
  each(type, ['device'], help, ({ figures }) =>
    figures.devices.flatMap(({ name, disk }) =>
      disk === undefined ? [] : [{ labels: [pathOf(name)], value: value(disk) }],
    ),
  );

/** Of a container whose layer is on a disk. */
const ofLayer = (help: string, value: (layer: Layer) => number): MetricRow =>
  each('GAUGE', ['device'], help, ({ figures: { layer } }) =>
    layer === undefined ? [] : [{ labels: [pathOf(layer.device)], value: value(layer) }],
  );

const operations = ({ figures }: Subject) =>
  figures.devices.flatMap(({ name, major, minor, readBytes, writtenBytes, discardedBytes }) =>
    Object.entries({ Read: readBytes, Write: writtenBytes, Discard: discardedBytes }).map(([operation, value]) => ({
      labels: [pathOf(name), String(major), String(minor), operation],
      value,
    })),
  );

/** cAdvisor's metrics of network, disks, and the file system that a container writes to. */
export const deviceMetrics = {
  container_network_receive_bytes_total: ofInterfaces('Bytes received.', ({ rxBytes }) => rxBytes),
  container_network_receive_packets_total: ofInterfaces('Packets received.', ({ rxPackets }) => rxPackets),
  container_network_receive_packets_dropped_total: ofInterfaces(
    'Packets that came and were dropped.',
    ({ rxDropped }) => rxDropped,
  ),
  container_network_receive_errors_total: ofInterfaces('Errors while receiving.', ({ rxErrors }) => rxErrors),
  container_network_transmit_bytes_total: ofInterfaces('Bytes sent.', ({ txBytes }) => txBytes),
  container_network_transmit_packets_total: ofInterfaces('Packets sent.', ({ txPackets }) => txPackets),
  container_network_transmit_packets_dropped_total: ofInterfaces(
    'Packets that were to be sent and were dropped.',
    ({ txDropped }) => txDropped,
  ),
  container_network_transmit_errors_total: ofInterfaces('Errors while sending.', ({ txErrors }) => txErrors),

  container_fs_usage_bytes: ofLayer('Bytes that it has written outside of its volumes.', ({ bytes }) => bytes),
  container_fs_limit_bytes: ofLayer('Bytes that it can have written there.', ({ limitBytes }) => limitBytes),
  container_fs_inodes_total: ofLayer('Files that there can be.', ({ totalInodes }) => totalInodes),
  container_fs_inodes_free: ofLayer('Files that can still be made.', ({ freeInodes }) => freeInodes),

  container_fs_reads_bytes_total: ofDevices('Bytes read.', ({ readBytes }) => readBytes),
  container_fs_reads_total: ofDevices('Reads.', ({ reads }) => reads),
  container_fs_sector_reads_total: ofDevices('Sectors of 512 bytes read.', ({ readBytes }) =>
    Math.floor(readBytes / sectorBytes),
  ),
  container_fs_writes_bytes_total: ofDevices('Bytes written.', ({ writtenBytes }) => writtenBytes),
  container_fs_writes_total: ofDevices('Writes.', ({ writes }) => writes),
  container_fs_sector_writes_total: ofDevices('Sectors of 512 bytes written.', ({ writtenBytes }) =>
    Math.floor(writtenBytes / sectorBytes),
  ),
  container_blkio_device_usage_total: each(
    'COUNTER',
    ['device', 'major', 'minor', 'operation'],
    'Bytes read, written and discarded.',
    operations,
  ),

  container_fs_reads_merged_total: ofDisks('COUNTER', 'Reads joined to others.', ({ mergedReads }) => mergedReads),
  container_fs_writes_merged_total: ofDisks('COUNTER', 'Writes joined to others.', ({ mergedWrites }) => mergedWrites),
  container_fs_read_seconds_total: ofDisks('COUNTER', 'Time of all reads, in seconds.', ({ readMs }) =>
    secondsOfMs(readMs),
  ),
  container_fs_write_seconds_total: ofDisks('COUNTER', 'Time of all writes, in seconds.', ({ writeMs }) =>
    secondsOfMs(writeMs),
  ),
  container_fs_io_current: ofDisks('GAUGE', 'Requests under way.', ({ inFlight }) => inFlight),
  container_fs_io_time_seconds_total: ofDisks('COUNTER', 'Time with a request under way, in seconds.', ({ busyMs }) =>
    secondsOfMs(busyMs),
  ),
  container_fs_io_time_weighted_seconds_total: ofDisks('COUNTER', 'Time of all requests, in seconds.', ({ queueMs }) =>
    secondsOfMs(queueMs),
  ),
} as const satisfies Record<string, MetricRow>;
