import { statfs } from 'node:fs/promises';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { within } from '#host/wait.ts';
import { diskBytes } from '#image/disk-bytes.ts';
import type { ImageStore } from '#image/images.ts';
import { cpuPeriodUs, memoryRequestOf, sharesOf } from '#sandbox/resources.ts';
import { sandboxMoves, type Resources, type Sandbox, type Sandboxes } from '#sandbox/sandbox.ts';
import { Exposition, type Format, type Written, writeSubject } from './exposition.ts';
import { guestRows, labelKeys, type Measured, measuredOf } from './guest-metrics.ts';
import { machineLabelKeys, machineMetrics, type MachineSubject } from './machine-metrics.ts';
import type { CpuResources } from './metric-row.ts';
import { NodeMeter } from './node-figures.ts';
import { type DiskRoom, nodeMetrics, type NodeSubject } from './node-metrics.ts';
import { type GuestSample, type PodSample, PodSampler } from './pod-sampler.ts';

export interface MetricsParts {
  /** The state directory. */
  readonly directory: string;
  readonly sandboxes: Sandboxes;
  readonly images: Pick<ImageStore, 'counts' | 'list'>;
  /** Version of this program. */
  readonly version: string;
  readonly clock: Clock;
  readonly log: Log;
}

const machineRows = Object.entries(machineMetrics);
const nodeRows = Object.entries(nodeMetrics);

/** All metrics of a node, as `/metrics` has them. */
export class MetricsPage implements Disposable {
  readonly #parts: MetricsParts;
  readonly #pods: PodSampler;
  readonly #meter = new NodeMeter();
  readonly #guestLines = new WeakMap<GuestSample, readonly Written[]>();
  readonly #templateMadeAt: () => Promise<Date | undefined>;
  readonly #room: () => Promise<DiskRoom | undefined>;

  constructor(parts: MetricsParts) {
    this.#parts = parts;
    this.#templateMadeAt = lastOf(() => parts.sandboxes.templateMadeAt());
    this.#room = lastOf(() => roomOf(parts.directory));
    this.#pods = new PodSampler(parts.sandboxes, parts.clock, parts.log, (...told) => void this.#linesOf(...told));
  }

  async write(format: Format): Promise<string> {
    const samples = await this.#pods.read();
    const node = this.#node(await this.#templateMadeAt(), await this.#room());
    const atMs = this.#parts.clock.monotonicMs();
    const exposition = new Exposition(format);
    exposition.add(
      guestRows,
      [...samples].flatMap(([sandbox, { guest }]) => this.#linesOf(sandbox, guest)),
    );
    const machines = [...samples].map(([sandbox, sample]) => ({
      labels: [sandbox.spec.namespace, sandbox.spec.name, sandbox.id],
      subject: machineOf(sandbox, sample, atMs),
    }));
    exposition.add(
      machineRows,
      machines.map((machine) => writeSubject(machineRows, machineLabelKeys, machine)),
    );
    exposition.add(nodeRows, [writeSubject(nodeRows, [], { labels: [], subject: node })]);
    return exposition.toString();
  }

  [Symbol.dispose](): void {
    this.#pods[Symbol.dispose]();
    this.#meter[Symbol.dispose]();
  }

  /** Writes most of a scrape's text when the guest has answered, so that a scrape takes only milliseconds. */
  #linesOf(sandbox: Sandbox, guest: GuestSample | undefined): readonly Written[] {
    if (guest === undefined) return [];
    const known = this.#guestLines.get(guest);
    if (known !== undefined) return known;
    const lines = guestsOf(sandbox, guest).map((measured) => writeSubject(guestRows, labelKeys, measured));
    this.#guestLines.set(guest, lines);
    return lines;
  }

  #node(templateMadeAt: Date | undefined, room: DiskRoom | undefined): NodeSubject {
    const { sandboxes, images, version, clock } = this.#parts;
    const all = sandboxes.list();
    const states = Object.keys(sandboxMoves).map(
      (state) => [state, all.filter(({ status }) => status.state === state).length] as const,
    );
    const stored = images.list();
    return {
      version,
      machines: { ...Object.fromEntries(states), creating: sandboxes.starting, waiting: sandboxes.waitingMachines },
      sandboxes: sandboxes.counts,
      templateMadeAt,
      room,
      reserveBytes: sandboxes.memoryReserveBytes,
      images: images.counts,
      storedImages: { count: stored.length, bytes: diskBytes(stored) },
      nowMs: clock.now(),
      figures: this.#meter.read(),
    };
  }
}

/** Wait for a result while there is none, in `ms`. */
const firstMs = 2_000;

/**
 * Makes a function that returns the last result and begins the next read, unless one is under way: the disk may be busy,
 * or hang.
 */
function lastOf<T>(read: () => Promise<T>): () => Promise<T | undefined> {
  let last: T | undefined;
  let isFirst = true;
  let reading: Promise<void> | undefined;
  return async () => {
    reading ??= read()
      .then(
        (result) => (last = result),
        () => (last = undefined),
      )
      .then(() => (reading = undefined));
    if (isFirst) await within(reading, { ms: firstMs });
    isFirst = false;
    return last;
  };
}

async function roomOf(directory: string): Promise<DiskRoom> {
  const { bsize, blocks, bavail } = await statfs(directory);
  return { bytes: bsize * blocks, availableBytes: bsize * bavail };
}

function guestsOf(sandbox: Sandbox, guest: GuestSample): readonly Measured[] {
  const { id, spec, status, resources } = sandbox;
  const { namespace, name } = spec;
  const containers = sandbox.containers.map((container) => {
    const { startedAt, image, ...its } = container.status;
    return { id: its.id, name: its.name, image, startedAt, resources: cpuResourcesOf(container.resources) };
  });
  const pod = { id, namespace, name, startedAt: status.createdAt, resources: cpuResourcesOf(resources), containers };
  const measured = measuredOf(pod, guest.metrics, guest.nowMs);
  return [measured.pod, ...measured.containers];
}

const machineOf = (sandbox: Sandbox, { host, guest, unanswered }: PodSample, atMs: number): MachineSubject => ({
  status: sandbox.status,
  memoryRequestBytes: memoryRequestOf(sandbox),
  host,
  guest: guest?.metrics.pod,
  guestAgeMs: guest === undefined ? undefined : Math.max(0, atMs - guest.atMs),
  unanswered,
});

/** Resources in the kubelet's terms. */
const cpuResourcesOf = ({ cpuLimitMillis, cpuRequestMillis }: Resources): CpuResources => ({
  cpuPeriod: cpuPeriodUs,
  cpuQuota: cpuLimitMillis === undefined ? -1 : (cpuLimitMillis * cpuPeriodUs) / 1000,
  cpuShares: sharesOf(cpuRequestMillis ?? 0),
});
