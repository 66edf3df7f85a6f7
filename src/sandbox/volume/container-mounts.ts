import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log.ts';
import {
  type AttachedSource,
  type FoundSource,
  type GuestDevice,
  type GuestMount,
  type GuestSource,
  type HostMode,
  type HostMount,
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

/** The mounts of one container. Disposing releases what it holds; the container must be gone from the guest. */
export interface PreparedMounts extends AsyncDisposable {
  readonly guest: readonly GuestMount[];
  readonly devices: readonly GuestDevice[];
  readonly status: readonly MountStatus[];
}

/**
 * The mounts of one sandbox's containers. Each source is brought into the guest once, by its *mode*, is shared by the
 * containers that mount it, and is removed after the last one.
 */
export interface ContainerMounts extends AsyncDisposable {
  /** Errors: `notFound`, `unsupported`, `exhausted`, and those of machine and agent; then nothing is held. */
  prepare(wanted: Pick<ContainerSpec, 'mounts' | 'devices'>, signal: AbortSignal): Promise<PreparedMounts>;
}

export interface ContainerMountsParts {
  readonly volumes: readonly SandboxVolume[];
  /** In the order in which they are asked. */
  readonly hostModes: readonly HostMode[];
  readonly imageMode: ImageMode;
  readonly deviceMode: DeviceMode;
  readonly log: Log;
}

export function createContainerMounts(parts: ContainerMountsParts): ContainerMounts {
  const onStuck = (key: string, error: unknown) => parts.log.error('volume not given back', error, { volume: key });
  const sources = createSharedSources<AttachedSource>(onStuck);
  const devices = createSharedSources<AttachedDevice>(onStuck);
  let next = 0;
  const takeName = (kind: MountSource['kind']) => {
    next += 1;
    return `${kind}_${next}`; // cannot be the name of a pod's volume, which is a DNS label
  };
  return {
    async prepare(wanted, signal) {
      await using held = new AsyncDisposableStack();
      const site: Site = { parts, sources, devices, takeName, held };
      const guest: GuestMount[] = [];
      const guestDevices: GuestDevice[] = [];
      const status: MountStatus[] = [];
      for (const mount of wanted.mounts) {
        const { mode, ...found } = await bringIn(mount, site, signal);
        guest.push(guestMountOf(mount, found.guest));
        status.push({ mountPath: mount.mountPath, mode });
      }
      for (const device of wanted.devices ?? []) {
        guestDevices.push(await bringInDevice(device, site, signal));
        status.push({ mountPath: device.devicePath, mode: 'block' });
      }
      const owned = held.move();
      return { guest, devices: guestDevices, status, [Symbol.asyncDispose]: () => owned.disposeAsync() };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([sources[Symbol.asyncDispose](), devices[Symbol.asyncDispose]()]);
    },
  };
}

interface Site {
  readonly parts: ContainerMountsParts;
  readonly sources: SharedSources<AttachedSource>;
  readonly devices: SharedSources<AttachedDevice>;
  readonly takeName: (kind: MountSource['kind']) => string;
  /** Holds for the container that asks. */
  readonly held: AsyncDisposableStack;
}

async function bringIn(
  mount: ContainerMount,
  site: Site,
  signal: AbortSignal,
): Promise<{ readonly mode: MountMode; readonly guest: GuestSource }> {
  const { source, mountPath } = mount;
  const { parts } = site;
  switch (source.kind) {
    case 'volume':
      return { mode: modeOfVolume(parts.volumes, source.name, mountPath), guest: { volume: source.name } };
    case 'host':
      return await bringInFound(await findOnHost({ ...mount, source }, parts.hostModes, signal), 'host', site, signal);
    case 'image':
      return await bringInFound(await parts.imageMode.find({ ...mount, source }, signal), 'image', site, signal);
  }
}

async function bringInFound(
  found: FoundSource,
  kind: MountSource['kind'],
  { sources, takeName, held }: Site,
  signal: AbortSignal,
): Promise<{ readonly mode: MountMode; readonly guest: GuestSource }> {
  await using source = found;
  const { mode, key } = source;
  const hold = await sources.hold(`${mode} ${key}`, async () => {
    signal.throwIfAborted();
    return await source.attach(takeName(kind), signal);
  });
  return { mode, guest: held.use(hold).value.guest };
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
): Promise<GuestDevice> {
  const found = await parts.deviceMode.find(device, signal);
  const hold = held.use(
    await devices.hold(found.key, async () => {
      signal.throwIfAborted();
      return await found.attach(signal);
    }),
  );
  return { disk: hold.value.serial, path: device.devicePath, readOnly: device.readOnly };
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
