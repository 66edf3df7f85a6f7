import { mkdir, open, readdir, rename, rm, rmdir, stat, truncate } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { lockFile } from '#host/file/file-lock.ts';
import { syncToDisk } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { blockBytes } from './ext4-room.ts';
import { maxScratchBytes } from './scratch-disk.ts';

/**
 * A *named volume* is a disk of the node that outlives pods: what a PersistentVolumeClaim gets, under the namespace and
 * name of the claim. It is an image file of the claim's size with an ext4, which the machine of one pod at a time mounts.
 * The host never reads what pods have written in it.
 */
export interface NamedVolume {
  readonly namespace: string;
  readonly name: string;
  readonly sizeBytes: number;
  /** Disk space that it takes on the host. */
  readonly usedBytes: number;
  readonly createdAt: Date;
}

export type VolumeChange = 'created' | 'configured' | 'unchanged';
export type VolumeWish = Pick<NamedVolume, 'namespace' | 'name' | 'sizeBytes'>;

/** Smallest ext4 with a journal, in bytes. */
export const minVolumeBytes = 8 * 1024 * 1024;
const maxVolumes = 1000;
const imageFile = 'disk.img';
/** Names that callers may pass: neither a path nor hidden. */
const objectName = /^[a-z0-9][-.a-z0-9]*$/;

/** The named volumes in a directory of the node. Several processes may read it, and one makes volumes. */
export class NamedVolumes {
  readonly #directory: string;
  /** Settles when the newest call that makes or removes volumes has ended. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Path of a volume's image file. Namespace and name are those of Kubernetes objects, and have no slash. */
  pathOf(namespace: string, name: string): string {
    return join(this.#directory, namespace, name, imageFile);
  }

  /** Lists the volumes by namespace and name. */
  async list(): Promise<readonly NamedVolume[]> {
    const volumes: NamedVolume[] = [];
    for (const namespace of (await entriesOf(this.#directory)).toSorted()) {
      for (const name of (await entriesOf(join(this.#directory, namespace))).toSorted()) {
        const found = await this.#find(namespace, name);
        if (found !== undefined) volumes.push(found);
      }
    }
    return volumes;
  }

  /** Finds a volume. Errors: `notFound`. */
  async get(namespace: string, name: string): Promise<NamedVolume> {
    const found = await this.#find(namespace, name);
    if (found !== undefined) return found;
    throw new PodvmError('notFound', `Cannot find the volume ${namespace}/${name}: the node has none of that name`, {
      fix: 'List the volumes with `podvm volume ls`.',
    });
  }

  /**
   * Makes the volumes that are missing, and enlarges those that are smaller: a machine grows their file systems within
   * seconds, or when it mounts them. Errors: `invalid` (size), `exhausted`, `failedPrecondition` for a volume that is larger;
   * nothing is made then.
   */
  async ensure(wishes: readonly VolumeWish[], signal: AbortSignal): Promise<readonly VolumeChange[]> {
    return await this.#inTurn(() => this.#ensureAll(wishes, signal));
  }

  /** Removes a volume with its data. Errors: `notFound`; `busy` while a machine has it. */
  async remove(namespace: string, name: string): Promise<NamedVolume> {
    return await this.#inTurn(() => this.#removeNow(namespace, name));
  }

  async #removeNow(namespace: string, name: string): Promise<NamedVolume> {
    const volume = await this.get(namespace, name);
    const path = this.pathOf(namespace, name);
    {
      await using image = await open(path, 'r');
      if (!(await lockFile(image))) {
        throw new PodvmError('busy', `Cannot remove the volume ${namespace}/${name}: a pod has it`, {
          fix: 'Stop the pod first; `podvm volume inspect` names it.',
        });
      }
      await rm(join(this.#directory, namespace, name), { recursive: true });
    }
    for (const directory of [join(this.#directory, namespace), this.#directory]) {
      await rmdir(directory).catch(() => {}); // it has others
    }
    return volume;
  }

  async #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const changed = this.#changing.then(act);
    this.#changing = changed.catch(() => {});
    return await changed;
  }

  async #find(namespace: string, name: string): Promise<NamedVolume | undefined> {
    if (![namespace, name].every((word) => objectName.test(word))) return undefined;
    const found = await stat(this.pathOf(namespace, name)).catch(() => undefined);
    if (found === undefined) return undefined;
    return { namespace, name, sizeBytes: found.size, usedBytes: found.blocks * 512, createdAt: found.birthtime };
  }

  async #ensureAll(wishes: readonly VolumeWish[], signal: AbortSignal): Promise<readonly VolumeChange[]> {
    const changes: VolumeChange[] = [];
    const wished = new Map<string, number>();
    for (const wish of wishes) {
      const key = `${wish.namespace}/${wish.name}`;
      const sizeBytes = sizeOf(wish);
      const earlier = wished.get(key);
      if (earlier !== undefined && earlier !== sizeBytes) throw givenTwice(key, earlier, sizeBytes);
      changes.push(earlier === undefined ? await this.#changeFor(wish) : 'unchanged');
      wished.set(key, sizeBytes);
    }
    const missing = wishes.filter((_, at) => changes[at] === 'created');
    if (missing.length > 0) await this.#checkCount(missing.length);
    for (const [at, wish] of wishes.entries()) {
      if (changes[at] === 'created') await this.#make(wish, signal);
      if (changes[at] === 'configured') await this.#enlarge(wish);
    }
    return changes;
  }

  async #enlarge(wish: VolumeWish): Promise<void> {
    const path = this.pathOf(wish.namespace, wish.name);
    await truncate(path, sizeOf(wish));
    await syncToDisk(path);
  }

  /** Errors: `invalid`, `failedPrecondition`. */
  async #changeFor(wish: VolumeWish): Promise<VolumeChange> {
    const { namespace, name } = wish;
    const sizeBytes = sizeOf(wish);
    const found = await this.#find(namespace, name);
    if (found === undefined) return 'created';
    if (found.sizeBytes <= sizeBytes) return found.sizeBytes === sizeBytes ? 'unchanged' : 'configured';
    throw new PodvmError(
      'failedPrecondition',
      `Cannot use the volume ${namespace}/${name}: it has ${found.sizeBytes} bytes and cannot shrink, and the claim requests ${sizeBytes}`,
      {
        fix: 'Request at least the size that it has, use another name, or remove it with its data: `podvm volume rm`.',
      },
    );
  }

  async #checkCount(more: number): Promise<void> {
    const count = (await this.list()).length;
    if (count + more <= maxVolumes) return;
    throw new PodvmError('exhausted', `Cannot make a volume: a node has at most ${maxVolumes}, got ${count + more}`, {
      fix: 'Remove some with `podvm volume rm`.',
    });
  }

  async #make(wish: VolumeWish, signal: AbortSignal): Promise<void> {
    const path = this.pathOf(wish.namespace, wish.name);
    const directory = join(this.#directory, wish.namespace, wish.name);
    const unfinished = join(directory, 'disk.new');
    await mkdir(directory, { recursive: true, mode: 0o700 });
    try {
      await rm(unfinished, { force: true });
      await format(unfinished, sizeOf(wish), signal);
      await syncToDisk(unfinished);
      await rename(unfinished, path);
      for (const changed of [directory, dirname(directory), this.#directory]) await syncToDisk(changed);
    } catch (error) {
      await rm(directory, { recursive: true });
      throw error;
    }
  }
}

const givenTwice = (name: string, one: number, other: number) =>
  new PodvmError('invalid', `Cannot make the volume ${name}: it is requested with ${one} and with ${other} bytes`, {
    fix: 'Request one size: a PersistentVolumeClaim may have the name of one that a StatefulSet makes by a volumeClaimTemplate.',
  });

/** Size of the volume of a claim, in bytes. Errors: `invalid`. */
function sizeOf({ namespace, name, sizeBytes }: VolumeWish): number {
  if (sizeBytes >= minVolumeBytes && sizeBytes <= maxScratchBytes)
    return Math.ceil(sizeBytes / blockBytes) * blockBytes;
  throw new PodvmError(
    'invalid',
    `Cannot make the volume ${namespace}/${name}: its size must be ${minVolumeBytes} to ${maxScratchBytes} bytes, got ${sizeBytes}`,
    { fix: "Change resources.requests.storage of the PersistentVolumeClaim, such as to '1Gi'." },
  );
}

/** Makes a sparse ext4 with a journal, since machines can be killed, and without lost+found, which databases refuse. */
async function format(path: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
  await (await open(path, 'wx', 0o600)).close();
  await truncate(path, sizeBytes);
  const options = ['-b', String(blockBytes), '-m', '0', '-E', 'nodiscard,lazy_itable_init=1,root_owner=0:0'];
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', ...options, path], { signal });
  await run('debugfs', ['-w', '-R', 'rmdir lost+found', path], { signal });
}

/** Names in a directory; none if there is no such directory. */
async function entriesOf(directory: string): Promise<readonly string[]> {
  return await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
}
