import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import {
  type AttachedSource,
  type FoundSource,
  type GuestDevice,
  type GuestMount,
  type GuestSource,
  type HeldSource,
  type HostMode,
  type HostMount,
  type Loss,
} from './host-mode.ts';
import type { AttachedDevice, DeviceMode } from './block-mode.ts';
import type { ImageMode } from './image-mode.ts';
import type {
  ContainerDevice,
  ContainerMount,
  ContainerSpec,
  MountMode,
  MountSource,
  MountStatus,
  SandboxVolume,
} from '../sandbox.ts';
import { createSharedSources, type SharedSources } from './shared-sources.ts';

/** The sources that one container holds. Disposing releases them; the container must be gone from the guest. */
export interface HeldMounts extends AsyncDisposable {
  readonly status: readonly MountStatus[];
  readonly sources: readonly HeldSource[];
  /** Calls the listener once, with the reason, when one of the sources is lost. */
  onLost(listener: (why: string) => void): void;
  /** Loses the sources whose process was stopped: one that waits for them in the guest cannot be killed. */
  endStopped(): Promise<void>;
}

export interface PreparedMounts extends HeldMounts {
  readonly guest: readonly GuestMount[];
  readonly devices: readonly GuestDevice[];
}

/**
 * The mounts of one sandbox's containers. Each source is brought into the guest once, by its *mode*, is shared by the
 * containers that mount it, and is removed after the last one.
 */
export interface ContainerMounts extends AsyncDisposable {
  /** Errors: `notFound`, `unsupported`, `exhausted`, and those of machine and agent; then nothing is held. */
  prepare(wanted: Pick<ContainerSpec, 'mounts' | 'devices'>, signal: AbortSignal): Promise<PreparedMounts>;
  /** Takes over the mounts of a container that an earlier process made. Errors: `unsupported`; nothing is held then. */
  adopt(before: Pick<HeldMounts, 'status' | 'sources'>, signal: AbortSignal): Promise<HeldMounts>;
  /** Pids of the file servers that serve mounts. */
  readonly serverPids: readonly number[];
}

/** Mounts for the status only, of a container that holds none. */
export function unheldMounts(status: readonly MountStatus[]): HeldMounts {
  return {
    status,
    sources: [],
    onLost: () => {},
    endStopped: async () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

export interface ContainerMountsParts {
  readonly volumes: readonly SandboxVolume[];
  /** Modes in the order in which they are tried. */
  readonly hostModes: readonly HostMode[];
  readonly imageMode: ImageMode;
  readonly deviceMode: DeviceMode;
  readonly log: Log;
}

export function createContainerMounts(parts: ContainerMountsParts): ContainerMounts {
  const onStuck = (key: string, error: unknown) => parts.log.error('volume not released', error, { volume: key });
  const sources = createSharedSources<AttachedSource>(onStuck, ({ loss }) => loss?.isLost !== true);
  const devices = createSharedSources<AttachedDevice>(onStuck);
  let next = 0;
  const takeName = (kind: MountSource['kind']) => {
    next += 1;
    return `${kind}_${next}`; // cannot be the name of a pod's volume, which is a DNS label
  };
  return {
    get serverPids() {
      return sources.values.flatMap(({ server, loss }) => (server === undefined || loss?.isLost ? [] : [server.pid]));
    },
    async prepare(wanted, signal) {
      await using held = new AsyncDisposableStack();
      const losses: Loss[] = [];
      const site: Site = { parts, sources, devices, takeName, held, losses };
      const guest: GuestMount[] = [];
      const guestDevices: GuestDevice[] = [];
      const status: MountStatus[] = [];
      const used: HeldSource[] = [];
      for (const mount of wanted.mounts) {
        const { mode, source, ...found } = await bringIn(mount, site, signal);
        guest.push(guestMountOf(mount, found.guest));
        status.push({ mountPath: mount.mountPath, mode });
        if (source !== undefined) used.push(source);
      }
      for (const device of wanted.devices ?? []) {
        const { guest: guestDevice, source } = await bringInDevice(device, site, signal);
        guestDevices.push(guestDevice);
        status.push({ mountPath: device.devicePath, mode: 'block' });
        used.push(source);
      }
      return { guest, devices: guestDevices, status, sources: used, ...heldBy(held.move(), losses) };
    },
    async adopt(before, signal) {
      await using held = new AsyncDisposableStack();
      const losses: Loss[] = [];
      for (const source of before.sources) {
        next = Math.max(next, Number(/_(\d+)$/.exec(source.guest.volume)?.[1] ?? 0));
        const { kind, key, block } = source;
        if (kind === 'device' && block !== undefined)
          held.use(await devices.hold(key, () => parts.deviceMode.adopt(block)));
        else {
          const { loss } = held.use(await sources.hold(key, () => adoptSource(source, parts, signal))).value;
          if (loss !== undefined) losses.push(loss);
        }
      }
      return { ...before, ...heldBy(held.move(), losses) };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([sources[Symbol.asyncDispose](), devices[Symbol.asyncDispose]()]);
    },
  };
}

function heldBy(
  owned: AsyncDisposableStack,
  losses: readonly Loss[],
): Pick<HeldMounts, 'onLost' | 'endStopped'> & AsyncDisposable {
  let isTold = false;
  return {
    onLost(listener) {
      for (const loss of losses) {
        const listening = loss.onLost((why) => {
          if (!isTold) listener(why);
          isTold = true;
        });
        owned.defer(() => listening[Symbol.dispose]());
      }
    },
    endStopped: async () => void (await Promise.all(losses.map((loss) => loss.endIfStopped()))),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface Site {
  readonly parts: ContainerMountsParts;
  readonly sources: SharedSources<AttachedSource>;
  readonly devices: SharedSources<AttachedDevice>;
  readonly takeName: (kind: MountSource['kind']) => string;
  /** Holds for the container that asks. */
  readonly held: AsyncDisposableStack;
  readonly losses: Loss[];
}

/** A device is given to the container itself and needs no volume. */
const noVolume: GuestSource = { volume: '' };

async function adoptSource(
  source: HeldSource,
  { hostModes, imageMode }: ContainerMountsParts,
  signal: AbortSignal,
): Promise<AttachedSource> {
  if (source.kind === 'image') return imageMode.adopt(source);
  for (const mode of hostModes) {
    const adopted = await mode.adopt?.(source, signal);
    if (adopted !== undefined) return adopted;
  }
  throw new PodvmError(
    'unsupported',
    `Cannot take over ${source.path ?? 'a volume'}: nothing is on record of how it was attached (${source.mode})`,
    { fix: 'Delete the pod and create it again.' },
  );
}

interface BroughtIn {
  readonly mode: MountMode;
  readonly guest: GuestSource;
  /** Absent for a volume of the sandbox, which the container need not hold. */
  readonly source?: HeldSource;
}

async function bringIn(mount: ContainerMount, site: Site, signal: AbortSignal): Promise<BroughtIn> {
  const { source, mountPath } = mount;
  const { parts } = site;
  switch (source.kind) {
    case 'volume':
      return { mode: modeOfVolume(parts.volumes, source.name, mountPath), guest: { volume: source.name } };
    case 'host': {
      const found = await findOnHost({ ...mount, source }, parts.hostModes, signal);
      return await bringInFound(found, { kind: 'host', path: source.path }, site, signal);
    }
    case 'image': {
      const found = await parts.imageMode.find({ ...mount, source }, signal);
      return await bringInFound(found, { kind: 'image' }, site, signal);
    }
  }
}

async function bringInFound(
  found: FoundSource,
  where: Pick<HeldSource, 'path'> & { readonly kind: 'host' | 'image' },
  { sources, takeName, held, losses }: Site,
  signal: AbortSignal,
): Promise<BroughtIn> {
  await using source = found;
  const { mode } = source;
  const key = `${mode} ${source.key}`;
  const hold = await sources.hold(key, async () => {
    signal.throwIfAborted();
    return await source.attach(takeName(where.kind), signal);
  });
  const { guest, server, block, loss } = held.use(hold).value;
  if (loss !== undefined) losses.push(loss);
  const of = { ...(server === undefined ? {} : { server }), ...(block === undefined ? {} : { block }) };
  return { mode, guest, source: { ...where, mode, key, guest, ...of } };
}

async function findOnHost(mount: HostMount, modes: readonly HostMode[], signal: AbortSignal): Promise<FoundSource> {
  for (const mode of modes) {
    const found = await mode.find(mount, signal);
    if (found !== undefined) return found;
  }
  throw new PodvmError('unsupported', `Cannot mount ${mount.mountPath}: no mode is for ${mount.source.path}`);
}

async function bringInDevice(
  device: ContainerDevice,
  { parts, devices, held }: Site,
  signal: AbortSignal,
): Promise<{ readonly guest: GuestDevice; readonly source: HeldSource }> {
  const found = await parts.deviceMode.find(device, signal);
  const hold = held.use(
    await devices.hold(found.key, async () => {
      signal.throwIfAborted();
      return await found.attach(signal);
    }),
  );
  const { hostPath: path, devicePath, readOnly } = device;
  const { block } = hold.value;
  return {
    guest: { disk: block.serial, path: devicePath, readOnly },
    source: { kind: 'device', mode: 'block', key: found.key, path, guest: noVolume, block },
  };
}

function modeOfVolume(volumes: readonly SandboxVolume[], name: string, mountPath: string): MountMode {
  const volume = volumes.find((candidate) => candidate.name === name);
  if (volume !== undefined) return volume.kind;
  throw new PodvmError('notFound', `Cannot mount ${mountPath}: the sandbox has no volume ${name}`);
}

function guestMountOf(
  { mountPath, subPath, readOnly: isWanted, source: { kind } }: ContainerMount,
  source: GuestSource,
): GuestMount {
  const readOnly = isWanted || kind === 'image'; // images are never writable
  return { destination: mountPath, readOnly, ...(subPath === undefined ? {} : { subPath }), ...source };
}
