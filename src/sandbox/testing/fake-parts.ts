import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HeldImage, ImageConfig } from '#image/images.ts';
import { createFakeImages, type FakeImages } from '#image/testing/fake-images.ts';
import { connectLink } from '#link/connect-link.ts';
import type { Link } from '#link/link.ts';
import { FakeGuest } from '#link/testing/fake-guest.ts';
import type { Attachment } from '#network/network.ts';
import { createFakeNetwork, FakeHostNetwork } from '#network/testing/fake-network.ts';
import { createFakeStorage } from '#storage/testing/fake-storage.ts';
import { createFakeDriver, type FakeMachine } from '#vm/testing/fake-driver.ts';
import type { Parts } from '../parts.ts';
import { around } from './around.ts';

export const fakeVersions = { key: 'k1', qemu: '1:10.0', kernel: '6.12.1', crun: '1.21', agent: 'a1' } as const;

/** FIFOs that take everything, and keep nothing. */
export const openFakeFifos: Parts['openFifos'] = () =>
  Promise.resolve({
    logged: { stdout: 0, stderr: 0 },
    write: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });

/**
 * Lower layers in memory, for tests of this layer: the fakes of each layer, which pass its conformance suite, and the real
 * link, to a fake guest. `before` is called with the name of each step, and may delay it or make it fail.
 */
export interface FakeParts extends Parts {
  /** Names of the resources that were made and are not undone yet. */
  readonly alive: ReadonlySet<string>;
  /** Runs before each step: `driver.start`, `link.connect`, `call configure`, ... */
  before: (step: string, signal: AbortSignal) => Promise<void>;
  /** By default, FIFOs take everything. */
  openFifos: Parts['openFifos'];
  /** The guest of the newest machine. */
  readonly guest: FakeGuest;
  readonly images: FakeImages;
  /** Ends the newest machine as a kill from outside would; events that its guest has sent still arrive. */
  killMachine(reason: string): void;
  /** Tears the channel of the newest machine, which continues to run. */
  tearLink(): void;
}

/** `imageConfig`: the config of every image in the registry. */
export function createFakeParts(directory: string, imageConfig: ImageConfig = { cmd: ['run'] }): FakeParts {
  const guests = new WeakMap<FakeMachine, FakeGuest>();
  const driver = createFakeDriver({
    hasEveryTemplate: true,
    onConnect: (agentEnd, machine) => guestOf(machine).serve(agentEnd),
  });
  const guestOf = (machine: FakeMachine): FakeGuest => {
    const guest = guests.get(machine) ?? new FakeGuest(surroundingsOf(machine));
    guests.set(machine, guest);
    return guest;
  };
  const newest = (): FakeMachine => {
    const machine = driver.machines.at(-1);
    if (machine === undefined) throw new Error('no machine yet');
    return machine;
  };
  const host = new FakeHostNetwork();
  const network = createFakeNetwork(host);
  const storage = createFakeStorage();
  const images = createFakeImages({
    directory: join(directory, 'images'),
    registry: (reference) => (reference === 'docker.io/library/missing:latest' ? undefined : imageConfig),
  });
  const links = new Set<Link>();
  const modulesDisk = join(directory, 'modules.erofs');
  const before: FakeParts['before'] = (step, signal) => parts.before(step, signal);
  const parts: FakeParts = {
    before: async (_step, signal) => signal.throwIfAborted(),
    get alive() {
      const machines = driver.machines.filter(({ isGone }) => !isGone);
      return new Set([
        ...machines.flatMap(({ ports }) => ['machine', ...[...ports.keys()].map((name) => `port ${name}`)]),
        ...[...host.attached.keys()].map(() => 'attachment'),
        ...storage.alive,
        ...(images.held > 0 ? ['image'] : []),
        ...(links.size > 0 ? ['link'] : []),
      ]);
    },
    get guest() {
      return guestOf(newest());
    },
    killMachine(reason) {
      const machine = newest();
      const die = () => machine.die(reason);
      guestOf(machine).told().then(die, die);
    },
    tearLink: () => newest().hangUp(),
    driver: around(driver, {
      async start(spec, signal) {
        await before('driver.start', signal);
        writeFileSync(modulesDisk, '');
        return aroundMachine(await driver.start(spec, signal), before);
      },
    }),
    network: around(network, {
      async prepare(request, signal) {
        await before('network.prepare', signal);
        return aroundAttachment(await network.prepare(request, signal), before);
      },
    }),
    images: aroundImages(images, before),
    snapshots: {
      async hold(directories, signal) {
        await before('snapshot', signal);
        return snapshotOf(await images.hold(`snapshot.invalid/${directories.length}`, 'Always', signal));
      },
      async holdMade(id) {
        const made = images.get(id.replace(/^snapshot:/, ''));
        return made && snapshotOf(await images.hold(made.id, 'Never', new AbortController().signal));
      },
    },
    async makeScratchDisk(request, signal) {
      await before('scratch', signal);
      return await storage.makeScratchDisk(request, signal);
    },
    async makeVolumeDisk(request, signal) {
      await before('volume disk', signal);
      return await storage.makeVolumeDisk(request, signal);
    },
    files: {
      async serve(request, signal) {
        await before('serveFiles', signal);
        return await storage.files.serve(request, signal);
      },
      adopt: (adoption) => storage.files.adopt(adoption),
    },
    adoptBlockClaim: (record) => storage.adoptBlockClaim(record),
    async claimBlock(request, signal) {
      await before(`claim ${request.path}`, signal);
      return await storage.claimBlock(request, signal);
    },
    openFifos: openFakeFifos,
    modulesDisk,
    versions: fakeVersions,
    async connectLink(options, signal) {
      await before('link.connect', signal);
      const link = await connectLink(options, signal);
      links.add(link);
      return aroundLink(link, () => links.delete(link), before);
    },
  };
  return parts;
}

/** Snapshots have ids of their own, and no configuration. */
const snapshotOf = (held: HeldImage): HeldImage => ({ ...held, id: `snapshot:${held.id}`, config: {} });

type Before = FakeParts['before'];

const surroundingsOf = (machine: FakeMachine) => ({
  hasDisk: (serial: string) => machine.disks.has(serial),
  hasPort: (name: string) => machine.ports.has(name),
  onPowerOff: () => machine.powerOff(),
});

function aroundMachine(machine: FakeMachine, before: Before): FakeMachine {
  return around(machine, {
    async attachDisk(disk, signal) {
      await before('machine.attachDisk', signal);
      await machine.attachDisk(disk, signal);
    },
    async detachDisk(serial, signal) {
      await before(`machine.detachDisk ${serial}`, signal);
      await machine.detachDisk(serial, signal);
    },
    async emptyDisk(serial, signal) {
      await before(`machine.emptyDisk ${serial}`, signal);
      await machine.emptyDisk(serial, signal);
    },
    async growDisk(serial, sizeBytes, signal) {
      await before(`machine.growDisk ${serial}`, signal);
      await machine.growDisk(serial, sizeBytes, signal);
    },
    async attachPort(name, signal) {
      await before('machine.attachPort', signal);
      return await machine.attachPort(name, signal);
    },
    async detachPort(name, signal) {
      await before('machine.detachPort', signal);
      await machine.detachPort(name, signal);
    },
  });
}

function aroundAttachment(attachment: Attachment, before: Before): Attachment {
  return around(attachment, {
    async connectAhead(signal) {
      await before('network.connectAhead', signal);
      await attachment.connectAhead(signal);
    },
    async connect(signal) {
      await before('network.connect', signal);
      return await attachment.connect(signal);
    },
  });
}

function aroundImages(images: FakeImages, before: Before): FakeImages {
  return around(images, {
    async hold(reference, policy, signal, options) {
      await before('image', signal);
      return await images.hold(reference, policy, signal, options);
    },
  });
}

function aroundLink(link: Link, onDisposed: () => void, before: Before): Link {
  return around(link, {
    async call(method, params, signal) {
      await before(`call ${method}`, signal);
      return await link.call(method, params, signal);
    },
    async [Symbol.asyncDispose]() {
      await link[Symbol.asyncDispose]();
      onDisposed();
    },
  });
}
