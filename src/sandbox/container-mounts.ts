import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log.ts';
import {
  type AttachedSource,
  type FoundSource,
  type GuestMount,
  type GuestSource,
  type HostMode,
  type HostMount,
} from './host-mode.ts';
import type { ImageMode } from './image-mode.ts';
import type { ContainerMount, MountMode, MountSource, MountStatus, SandboxVolume } from './sandbox.ts';
import { createSharedSources, type SharedSources } from './shared-sources.ts';

/** The mounts of one container. Disposing gives back what it holds; the container must be gone from the guest. */
export interface PreparedMounts extends AsyncDisposable {
  readonly guest: readonly GuestMount[];
  readonly status: readonly MountStatus[];
}

/**
 * What the containers of one sandbox mount. Each source is brought into the guest once, by its *mode*, is shared by the
 * containers that mount it, and goes when none does any more.
 */
export interface ContainerMounts extends AsyncDisposable {
  /** Errors: `notFound`, `unsupported`, `exhausted`, and those of machine and agent; nothing is held then. */
  prepare(mounts: readonly ContainerMount[], signal: AbortSignal): Promise<PreparedMounts>;
}

export interface ContainerMountsParts {
  readonly volumes: readonly SandboxVolume[];
  /** In the order in which they are asked. */
  readonly hostModes: readonly HostMode[];
  readonly imageMode: ImageMode;
  readonly log: Log;
}

export function createContainerMounts(parts: ContainerMountsParts): ContainerMounts {
  const sources = createSharedSources<AttachedSource>((key, error) =>
    parts.log.error('volume not given back', error, { volume: key }),
  );
  let next = 0;
  const takeName = (kind: MountSource['kind']) => {
    next += 1;
    return `${kind}_${next}`; // which no volume of a pod can have: its name is a DNS label
  };
  return {
    async prepare(mounts, signal) {
      await using held = new AsyncDisposableStack();
      const guest: GuestMount[] = [];
      const status: MountStatus[] = [];
      for (const mount of mounts) {
        const { mode, ...found } = await bringIn(mount, { parts, sources, takeName, held }, signal);
        guest.push(guestMountOf(mount, found.guest));
        status.push({ mountPath: mount.mountPath, mode });
      }
      const owned = held.move();
      return { guest, status, [Symbol.asyncDispose]: () => owned.disposeAsync() };
    },
    [Symbol.asyncDispose]: () => sources[Symbol.asyncDispose](),
  };
}

interface Site {
  readonly parts: ContainerMountsParts;
  readonly sources: SharedSources<AttachedSource>;
  readonly takeName: (kind: MountSource['kind']) => string;
  /** Of the container that asks. */
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

function modeOfVolume(volumes: readonly SandboxVolume[], name: string, mountPath: string): MountMode {
  const volume = volumes.find((candidate) => candidate.name === name);
  if (volume !== undefined) return volume.kind;
  throw new PodvmError('notFound', `Cannot mount ${mountPath}: the sandbox has no volume ${name}`);
}

function guestMountOf(
  { mountPath, subPath, readOnly: isWanted, source: { kind } }: ContainerMount,
  source: GuestSource,
): GuestMount {
  const readOnly = isWanted || kind === 'image'; // an image is nobody's to write to
  return { destination: mountPath, readOnly, ...(subPath === undefined ? {} : { subPath }), ...source };
}
