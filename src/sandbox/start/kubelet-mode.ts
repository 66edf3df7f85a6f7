import { kindOf, messageOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import type { Link } from '#link/link.ts';
import { readHostTree, type HostTree, type TreeLimits } from '#storage/host-tree.ts';
import { kubeletVolumeOf, type KubeletVolume } from '#storage/kubelet-volume.ts';
import { watchPath, type WatchTiming } from '#storage/watch-path.ts';
import { scratchSerial } from '../volume/volume-disks.ts';
import type { AttachedSource, GuestSource, HeldSource, HostMode } from '../volume/host-mode.ts';
import { pushVolume } from '../volume/push-volume.ts';

export interface KubeletModeParts {
  /** Uid of the pod. A path in the kubelet's directory of another pod is an ordinary path. */
  readonly podUid: string;
  readonly guest: Pick<Link, 'call'>;
  readonly trees: TreeLimits;
  readonly log: Log;
  readonly watchTiming?: WatchTiming;
}

type PushedVolume = Extract<KubeletVolume, { readonly kind: 'push' }>;
type EmptyVolume = Exclude<KubeletVolume, PushedVolume>;

/** A volume in the guest, which stays until the sandbox ends. */
interface GuestVolume {
  /** Sends changes on the host, if any. */
  refresh(signal: AbortSignal): Promise<void>;
}

/**
 * Volumes that a kubelet keeps for the pod: its files are copied into the guest, again when they change; an emptyDir is made
 * in the guest. Disposing ends the watches; the volumes themselves go with the machine.
 */
export function createKubeletMode(parts: KubeletModeParts): HostMode & AsyncDisposable {
  const volumes = new Map<string, Promise<GuestVolume>>();
  const watches = new AsyncDisposableStack();

  const ensure = async (volume: KubeletVolume, signal: AbortSignal): Promise<void> => {
    for (let before = volumes.get(volume.name); before !== undefined; before = volumes.get(volume.name)) {
      if ((await before.catch(() => undefined)) !== undefined) return; // otherwise it failed for another caller: tries again
    }
    const making =
      volume.kind === 'push' ? makePushed(volume, parts, watches, signal) : makeEmpty(volume, parts, signal);
    volumes.set(volume.name, making);
    making.catch(() => volumes.delete(volume.name));
    await making;
  };
  return {
    async find({ source }, signal) {
      const volume = await kubeletVolumeOf(source.path, parts.podUid);
      if (volume === undefined) return undefined;
      await (await volumes.get(volume.name))?.refresh(signal);
      const guest = guestSourceOf(volume);
      return {
        mode: volume.kind,
        key: `${guest.volume} ${guest.subPath ?? ''}`,
        async attach(_name, attaching) {
          await ensure(volume, attaching);
          return { guest, [Symbol.asyncDispose]: () => Promise.resolve() };
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
    adopt: (held) => adopt(held, parts, volumes, watches),
    [Symbol.asyncDispose]: () => watches.disposeAsync(),
  };
}

/**
 * Takes over a volume that is in the guest. The guest's version of it is not known, so the host's current files are
 * sent again. If the kubelet has removed the volume, the guest keeps its files.
 */
async function adopt(
  { kind, mode, guest, path }: HeldSource,
  parts: KubeletModeParts,
  volumes: Map<string, Promise<GuestVolume>>,
  watches: AsyncDisposableStack,
): Promise<AttachedSource | undefined> {
  if (kind !== 'host' || path === undefined || !['push', 'scratch', 'tmpfs'].includes(mode)) return undefined;
  const attached = { guest, [Symbol.asyncDispose]: () => Promise.resolve() };
  if (volumes.has(guest.volume)) return attached;
  try {
    const volume = await kubeletVolumeOf(path, parts.podUid);
    if (volume?.kind !== 'push') {
      volumes.set(guest.volume, Promise.resolve(unchanging));
      return attached;
    }
    const pushed = createRefresher(volume, undefined, parts);
    volumes.set(guest.volume, Promise.resolve(pushed));
    if (!volume.isLive) return attached;
    watches.use(watchVolume(volume, pushed, parts));
    pushed.refresh(AbortSignal.timeout(refreshTimeoutMs)).catch((error: unknown) => {
      tellTrouble(parts.log, volume.name, error);
    });
  } catch (error) {
    tellTrouble(parts.log, guest.volume, error);
  }
  return attached;
}

/** A volume that nothing on the host changes. */
const unchanging: GuestVolume = { refresh: () => Promise.resolve() };
/** Timeout of the first refresh of a volume that was taken over, in `ms`; the watch tries again. */
const refreshTimeoutMs = 60_000;

function guestSourceOf(volume: KubeletVolume): GuestSource {
  const { name } = volume;
  if (volume.kind !== 'push')
    return { volume: name, ...(volume.subPath === undefined ? {} : { subPath: volume.subPath }) };
  if (volume.file !== undefined) return { volume: name, subPath: volume.file };
  return { volume: name, ...(volume.isLive ? {} : { subPath: '..data' }) }; // a sub-path shows nothing of versions
}

async function makeEmpty(volume: EmptyVolume, { guest }: KubeletModeParts, signal: AbortSignal): Promise<GuestVolume> {
  const { name, kind, owner, sizeLimitBytes } = volume;
  await guest.call(
    'createVolume',
    {
      name,
      kind,
      ...owner,
      ...(kind === 'scratch' ? { disk: scratchSerial } : {}),
      ...(sizeLimitBytes === undefined ? {} : { sizeLimitBytes }),
    },
    signal,
  );
  return unchanging;
}

async function makePushed(
  volume: PushedVolume,
  parts: KubeletModeParts,
  watches: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<GuestVolume> {
  const { name, isLive } = volume;
  const { guest } = parts;
  const tree = await readTree(volume, parts, signal); // first, so that too large a volume leaves nothing behind
  const isFile = volume.file !== undefined;
  const root = isFile ? { mode: 0o755, inPlace: true } : tree.owner;
  await guest.call('createVolume', { name, kind: 'push', ...root }, signal);
  try {
    await pushVolume(guest, name, tree.files, signal);
  } catch (error) {
    await guest.call('removeVolume', { name }, AbortSignal.timeout(removeTimeoutMs)).catch(() => {}); // the error below tells
    throw error;
  }
  const pushed = createRefresher(volume, tree.digest, parts);
  if (isLive) watches.use(watchVolume(volume, pushed, parts));
  return pushed;
}

function watchVolume({ name, hostPath }: PushedVolume, pushed: GuestVolume, { log, watchTiming }: KubeletModeParts) {
  return watchPath({
    path: hostPath,
    onChange: (watching) => pushed.refresh(watching),
    onTrouble: (error) => tellTrouble(log, name, error),
    ...(watchTiming === undefined ? {} : { timing: watchTiming }),
  });
}

const removeTimeoutMs = 5000;

/** Refreshes one at a time, in order: an older version never follows a newer one. */
function createRefresher(
  volume: PushedVolume,
  first: HostTree['digest'] | undefined,
  parts: KubeletModeParts,
): GuestVolume {
  let digest = first;
  let last: Promise<void> = Promise.resolve();
  const refreshNow = async (signal: AbortSignal): Promise<void> => {
    const tree = await readTree(volume, parts, signal);
    if (tree.digest === digest) return;
    await pushVolume(parts.guest, volume.name, tree.files, signal);
    digest = tree.digest;
    parts.log.debug('volume updated', { volume: volume.name, files: tree.files.length });
  };
  return {
    refresh(signal) {
      const mine = last.catch(() => {}).then(() => refreshNow(signal));
      last = mine;
      return mine;
    },
  };
}

function readTree({ name, hostPath }: PushedVolume, { trees }: KubeletModeParts, signal: AbortSignal) {
  return readHostTree(`volume ${name}`, hostPath, trees, signal);
}

/** Logs the failure; a missing volume is normal, since a kubelet removes a pod's volumes before its sandbox. */
function tellTrouble(log: Log, volume: string, error: unknown): void {
  const why = messageOf(error);
  if (kindOf(error) === 'notFound') log.debug('volume is gone from the host', { volume, why });
  else log.warn('volume not updated, trying again', { volume, why });
}
