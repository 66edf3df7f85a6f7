import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Result } from '#wire/messages.ts';
import type { HeldImage } from '#image/images.ts';
import type { ScratchDisk } from '#storage/volumes.ts';
import { ContainerRecords } from '../container/container-record.ts';
import { type GuestConnection, madeBefore } from '../live/guest-connection.ts';
import { limitOnHost } from '../live/resize.ts';
import { beginConnection } from '../start/configure-guest.ts';
import { linkTo, scratchDisk, type Identity } from '../start/machine-steps.ts';
import { attachableOf, startSteps, type PodSite, type StartMade } from '../start/pod-steps.ts';
import { stepOf, type Steps } from '../start/run-steps.ts';
import { isSnapshot } from '#image/snapshot/snapshot-images.ts';
import { createImageDisks } from '../volume/image-disks.ts';
import type { VolumeDisks } from '../volume/volume-disks.ts';
import { adoptContainers, readContainers, type FoundContainer, type KnownContainer } from './adopt-containers.ts';
import {
  leftFix,
  sandboxDirectory,
  type PodRecord,
  type SandboxDirectory,
  type SandboxRecord,
} from '../recovery/record.ts';

/** The record of a sandbox that can be taken over. */
export type AdoptableRecord = SandboxRecord & { readonly pod: PodRecord };

export interface AdoptSite extends PodSite {
  readonly record: AdoptableRecord;
  /** Directory of the sandbox. */
  readonly path: string;
  /**
   * While false, undoing the steps keeps the directory, so that the records and logs of a sandbox that is ended remain.
   */
  readonly outcome: { readonly isTakenOver: boolean };
}

/** The results of a start, and the containers that guest and records name. */
export interface AdoptMade extends StartMade {
  readonly listed: Result<'list'>;
  /** The machine knows its disks and ports. */
  readonly devices: true;
  readonly known: readonly KnownContainer[];
  readonly containers: readonly FoundContainer[];
}

const step = stepOf<AdoptMade, AdoptSite>();

/** A step whose result exists already and needs no object in this process. */
const there = { needs: [], run: () => undefined } as const;

/** What is taken over of a sandbox with a foreign agent, to end it later. */
type Held = Pick<AdoptMade, 'machine' | 'attachment'>;

/** The agent speaks no version of the protocol with which this podvm can take its sandbox over. */
export class ForeignAgent extends PodvmError {
  readonly held: Held;

  constructor({ namespace, name }: SandboxRecord, held: Held, cause?: unknown) {
    super('unsupported', `Cannot take over ${namespace}/${name}: its agent speaks another protocol`, {
      cause,
      fix: leftFix(name),
    });
    this.held = held;
  }
}

/** The first version of the protocol whose agents list their containers. */
const firstAdopted = 2;

const gone = (what: string) => new PodvmError('unavailable', `Cannot take over the sandbox: ${what}`);

/**
 * Takes over what the steps of a start made in an earlier process. Each step is undone like the step of the start; when
 * one fails, the sandbox is ended, unless its agent is foreign.
 */
export const adoptSteps: Steps<AdoptMade, AdoptSite> = {
  name: { ...startSteps.name, needs: [] },
  claims: { ...startSteps.claims, needs: [] },
  turn: step({
    name: 'turn came',
    what: 'as many sandboxes are taken over at a time as are started',
    needs: [],
    run: (_made, { context }, signal) => context.gate.enter(signal),
    undo: (turn) => turn[Symbol.dispose](),
    until: 'started',
  }),
  identity: step({
    ...startSteps.identity,
    needs: [],
    run: (_made, { context, record }): Identity => ({ record, user: context.userIds.take(record.uid) }),
  }),
  directory: step({
    ...startSteps.directory,
    needs: [],
    run: (_made, { path, outcome }): SandboxDirectory => {
      const directory = sandboxDirectory(path);
      const remove = () => (outcome.isTakenOver ? directory[Symbol.asyncDispose]() : Promise.resolve());
      return { ...directory, [Symbol.asyncDispose]: remove };
    },
  }),
  template: { ...startSteps.template, needs: [], run: () => 'restore' },
  attachment: step({
    ...startSteps.attachment,
    needs: ['turn'],
    run: async (_made, { context, record }, signal) => {
      const attachment = await context.parts.network.adopt(record.id, signal);
      if (attachment === undefined) throw gone('its network namespace is gone');
      return attachment;
    },
  }),
  scratch: step({
    ...startSteps.scratch,
    needs: ['directory'],
    run: ({ directory: { machinePath } }, { order }): ScratchDisk => {
      const path = join(machinePath, scratchDisk.file);
      const { scratchBytes: sizeBytes } = order.size;
      return { path, sizeBytes, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    },
  }),
  machine: step({
    name: 'machine taken over',
    what: 'QEMU answers',
    needs: ['turn', 'attachment', 'scratch'],
    run: async (_made, { context, record }, signal) => {
      const { machine } = record;
      const adopted = machine === undefined ? undefined : await context.parts.driver.adopt(machine, signal);
      if (adopted === undefined) throw gone('its machine ended while no podvm ran');
      return adopted;
    },
    undo: (machine) => machine[Symbol.asyncDispose](),
    lost: async (machine) => gone((await machine.exited).reason),
  }),
  record: { ...startSteps.record, needs: [], run: (_made, { record }) => record },
  devices: step({
    name: 'devices listed',
    what: 'QEMU lists its disks and ports; meanwhile the agent answers',
    needs: ['machine'],
    run: async ({ machine }, _site, signal): Promise<true> => {
      await machine.learnDevices(signal);
      return true;
    },
  }),
  guest: step({
    ...startSteps.guest,
    needs: ['attachment', 'machine'],
    run: async ({ attachment, machine }, { context, record }, signal) => {
      const link = await linkTo(machine, context, { isUp: true }, signal).catch((error: unknown) => {
        throw kindOf(error) === 'unsupported' ? new ForeignAgent(record, { machine, attachment }, error) : error;
      });
      if (link.welcome.version >= firstAdopted) return link;
      await link[Symbol.asyncDispose]();
      throw new ForeignAgent(record, { machine, attachment });
    },
  }),
  scratchPlugged: { ...startSteps.scratchPlugged, ...there },
  scratchReady: { ...startSteps.scratchReady, ...there },
  listed: step({
    name: 'guest listed',
    what: 'the agent lists its containers with their exits, its volumes and its disks',
    needs: ['guest'],
    run: ({ guest }, _site, signal) => guest.call('list', {}, signal),
  }),
  assigned: { ...startSteps.assigned, ...there },
  named: { ...startSteps.named, ...there },
  imageDisks: step({
    name: 'images held',
    what: 'images in use by the machine stay on the node',
    needs: ['directory', 'machine', 'devices', 'guest', 'listed'],
    run: ({ directory, machine, guest, listed }, site) =>
      createImageDisks({
        machine,
        guest,
        machineDirectory: directory.machinePath,
        before: { images: site.record.pod.images, serials: listed.disks, held: holdImages(site) },
      }),
    undo: (disks) => disks[Symbol.asyncDispose](),
  }),
  imagesPlugged: { ...startSteps.imagesPlugged, ...there },
  configured: { ...startSteps.configured, ...there },
  volumeDisks: step({
    ...startSteps.volumeDisks,
    needs: ['directory'],
    run: ({ directory }): VolumeDisks => ({
      plug: () => Promise.reject(new PodvmError('internal', 'Cannot make a volume: the sandbox has started')),
      [Symbol.asyncDispose]: () => removeVolumeDisks(directory.machinePath),
    }),
  }),
  network: step({
    name: 'network taken over',
    what: 'addresses and host ports are unchanged',
    needs: ['attachment'],
    run: ({ attachment }, _site, signal) => attachment.connect(signal),
  }),
  connection: step({
    ...startSteps.connection,
    needs: ['guest', 'listed', 'network'],
    run: connectGuest,
  }),
  attachable: step({
    ...startSteps.attachable,
    needs: ['identity', 'directory', 'machine', 'devices', 'guest', 'imageDisks', 'claims', 'listed'],
    run(made, site) {
      const fits = site.record.parts?.kernel === site.context.parts.versions.kernel;
      return attachableOf(made, site, { serials: made.listed.disks, fits });
    },
    undo: ({ owned }) => owned[Symbol.asyncDispose](),
  }),
  known: step({
    name: 'logs read',
    what: 'containers on record, and where each log ends; meanwhile the machine answers',
    needs: ['directory'],
    run: ({ directory }) => readContainers(directory.path),
  }),
  containers: step({
    name: 'containers taken over',
    what: 'volumes are served and watched, and output continues where each log ends (`adopt-containers.ts`)',
    needs: ['directory', 'guest', 'listed', 'attachable', 'known'],
    run: ({ directory, guest, listed, known, attachable: { mounts } }, { context, record }, signal) => {
      const { limits, surroundings, parts } = context;
      const log = surroundings.log.with({ sandbox: record.id });
      const records = new ContainerRecords(directory.path);
      const site = { guest, limits, log, directory: directory.path, records, surroundings, mounts, parts };
      return adoptContainers(listed.containers, known, site, signal);
    },
  }),
  limited: step({
    name: 'machine limited',
    what: 'the cgroup of the machine has room for its file servers',
    needs: ['machine', 'containers'],
    run: async ({ machine }, { context, record }) => {
      try {
        await limitOnHost(machine, record.pod, context.limits.size);
      } catch (error) {
        const why = messageOf(error); // the current limits stay
        context.surroundings.log.warn('limits of a machine not updated', { sandbox: record.id, why });
      }
    },
  }),
};

/** The earlier process may have ended while the guest was connected: the call may not even have reached it. */
async function connectGuest(
  { guest, listed: { connection }, network }: Pick<AdoptMade, 'guest' | 'listed' | 'network'>,
  { spec, order, phases, record }: AdoptSite,
  signal: AbortSignal,
): Promise<GuestConnection> {
  const { failure } = connection ?? {};
  if (failure !== undefined) throw gone(`its guest has no network: ${printable(failure)}`);
  if (record.pod.isConnected || connection !== undefined) return madeBefore;
  const again = beginConnection(spec, guest, { network, resources: order.size.resources, phases }, signal);
  await again.made;
  return again;
}

/**
 * Holds the images in the background, because the image store opens after the sandboxes. An image that cannot be held
 * may be removed without harm: the machine has its own link to the file.
 */
function holdImages({ context, record }: AdoptSite): AsyncDisposable {
  const { parts, surroundings } = context;
  const held = new Set<HeldImage>();
  let isOver = false;
  for (const { id } of record.pod.images) {
    if (isSnapshot(id)) continue; // it belongs to another program, which keeps it while it has the container
    parts.images.hold(id, 'Never', new AbortController().signal).then(
      (image) => (isOver ? image[Symbol.asyncDispose]() : void held.add(image)),
      (error: unknown) => {
        surroundings.log.warn('image not held', { sandbox: record.id, image: id, why: messageOf(error) });
      },
    );
  }
  return {
    async [Symbol.asyncDispose]() {
      isOver = true;
      for (const image of held) await image[Symbol.asyncDispose]();
    },
  };
}

async function removeVolumeDisks(machinePath: string): Promise<void> {
  for (const file of await readdir(machinePath).catch(() => [])) {
    if (/^volume-\d+\.ext4$/.test(file)) await rm(join(machinePath, file), { force: true });
  }
}
