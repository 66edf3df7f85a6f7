import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { limits } from '#wire/limits.ts';
import type { Params } from '#wire/messages.ts';
import { open } from '#engine/constants.ts';
import type { Clock, Descriptors, Files, Text } from '#engine/engine.ts';
import type { Volume } from './volumes.ts';

type Parts = Clock & Files & Pick<Descriptors, 'open' | 'write' | 'close'> & Pick<Text, 'decodeBase64'>;

const maxPushes = 16;

interface Push {
  readonly volume: Volume;
  /** Name of the new version's directory in the volume. */
  readonly version: string;
  bytes: number;
}

/** New trees for push volumes, each of which appears at once. */
export class Pushes {
  readonly #parts: Parts;
  readonly #pushes = new Map<number, Push>();
  #last = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  begin(volume: Volume): number {
    const { name, kind } = volume.params;
    if (kind !== 'push') throw new PodvmError('invalid', `Cannot push to volume ${name}: its files are not pushed`);
    if (this.#pushes.size >= maxPushes) throw new PodvmError('exhausted', 'Cannot push: too many pushes at a time');
    this.#last += 1;
    // Kubelet's layout: a directory named after the time, and `..data` pointing to the current one.
    const version = `..${new Date(this.#parts.realtimeMs()).toISOString().replace(/[-:TZ]/g, '_')}.${this.#last}`;
    this.#makeDirectory(volume, `${volume.path}/${version}`);
    this.#pushes.set(this.#last, { volume, version, bytes: 0 });
    return this.#last;
  }

  /** Appends a part of one file. Errors: `invalid` (path, encoding), `exhausted`. */
  file({ push: id, path, mode, uid, gid, data }: Params<'pushFile'>): void {
    const push = this.#find(id);
    const { volume } = push;
    const names = path.split('/');
    if (names.some((name) => name === '' || name === '.' || name === '..' || name.includes('\0'))) {
      throw new PodvmError('invalid', `Cannot push ${printable(path)}: it leads out of the volume`);
    }
    const bytes = this.#parts.decodeBase64(data);
    push.bytes += bytes.length;
    if (push.bytes > limits.maxPushVolumeBytes) {
      throw new PodvmError('exhausted', `Cannot push to volume: it is over ${limits.maxPushVolumeBytes} bytes`);
    }
    let directory = `${volume.path}/${push.version}`;
    for (const name of names.slice(0, -1)) {
      directory += `/${name}`;
      if (this.#parts.status(directory) === undefined) this.#makeDirectory(volume, directory);
    }
    const file = `${directory}/${names.at(-1) ?? ''}`;
    this.#append(file, bytes);
    const { fsGroup } = volume.params;
    this.#parts.changeOwner(file, uid ?? 0, gid ?? fsGroup ?? 0);
    this.#parts.changeMode(file, fsGroup === undefined ? mode : mode | ((mode & 0o500) >> 3));
  }

  commit(id: number): void {
    const push = this.#find(id);
    if (push.volume.params.inPlace === true) this.#writeOver(push);
    else this.#switch(push);
    this.#pushes.delete(id);
  }

  abort(id: number): void {
    const push = this.#pushes.get(id);
    if (push === undefined) return;
    this.#pushes.delete(id);
    this.#parts.removeTree(`${push.volume.path}/${push.version}`);
  }

  /** Switches as kubelet does: one rename shows the new version whole and hides the old one. */
  #switch({ volume: { path }, version }: Push): void {
    const current = `${path}/..data`;
    const old = this.#parts.status(current) === undefined ? undefined : this.#parts.readLink(current);
    this.#parts.symlink(version, `${path}/..data_tmp`);
    this.#parts.rename(`${path}/..data_tmp`, current);
    const names = new Set(this.#parts.list(`${path}/${version}`));
    for (const name of names) {
      if (this.#parts.status(`${path}/${name}`) === undefined) this.#parts.symlink(`..data/${name}`, `${path}/${name}`);
    }
    for (const name of this.#parts.list(path)) {
      if (!name.startsWith('..') && !names.has(name)) this.#parts.removeFile(`${path}/${name}`);
    }
    if (old !== undefined) this.#parts.removeTree(`${path}/${old}`);
  }

  /**
   * Overwrites files in place, because a file mounted by itself is an inode, which must stay the same. Applies to plain
   * files only.
   */
  #writeOver({ volume: { path }, version }: Push): void {
    const names = new Set(this.#parts.list(`${path}/${version}`));
    for (const name of names) {
      const from = `${path}/${version}/${name}`;
      const status = this.#parts.status(from);
      if (status?.kind !== 'file') throw new PodvmError('invalid', 'Cannot write over: expected only plain files');
      if (this.#parts.status(`${path}/${name}`) === undefined) {
        this.#parts.rename(from, `${path}/${name}`);
        continue;
      }
      this.#parts.writeFile(`${path}/${name}`, this.#parts.readFile(from, limits.maxPushVolumeBytes), status.mode);
      this.#parts.changeOwner(`${path}/${name}`, status.uid, status.gid);
    }
    for (const name of this.#parts.list(path)) {
      if (!name.startsWith('..') && !names.has(name)) this.#parts.removeFile(`${path}/${name}`);
    }
    this.#parts.removeTree(`${path}/${version}`);
  }

  #append(path: string, bytes: Uint8Array): void {
    const fd = this.#parts.open(path, open.writeOnly | open.create | open.append | open.noFollow, 0o600);
    try {
      for (let at = 0; at < bytes.length; at += this.#parts.write(fd, bytes, at));
    } finally {
      this.#parts.close(fd);
    }
  }

  #makeDirectory({ params: { uid = 0, gid, fsGroup, mode = 0 } }: Volume, path: string): void {
    this.#parts.makeDirectory(path, 0o755);
    this.#parts.changeOwner(path, uid, fsGroup ?? gid ?? 0);
    this.#parts.changeMode(path, 0o755 | (mode & setGroupId)); // inherited, as in a volume with an fsGroup
  }

  #find(id: number): Push {
    const push = this.#pushes.get(id);
    if (push === undefined) throw new PodvmError('notFound', `Cannot push: there is no push ${id}`);
    return push;
  }
}

const setGroupId = 0o2000;
