import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { limits } from '#wire/limits.ts';
import { open } from '../engine/constants.ts';
import type { Engine } from '../engine/engine.ts';

type Parts = Pick<
  Engine,
  | 'makeDirectories'
  | 'removeTree'
  | 'rename'
  | 'symlink'
  | 'readLink'
  | 'status'
  | 'list'
  | 'removeFile'
  | 'open'
  | 'write'
  | 'close'
  | 'changeOwner'
  | 'changeMode'
  | 'decodeBase64'
>;

const dataLink = '..data';

/**
 * One new tree for a push volume. Laid out as kubelet does it, so that programs that watch for the switch see what they
 * see anywhere: files are in `..<number>/`, `..data` is a symlink to it, and the volume's names are symlinks through it.
 */
export class Push {
  readonly volume: string;
  readonly #parts: Parts;
  readonly #root: string;
  readonly #tree: string;
  readonly #fsGroup: number | undefined;
  #bytes = 0;

  constructor(parts: Parts, options: { volume: string; root: string; number: number; fsGroup: number | undefined }) {
    this.#parts = parts;
    this.volume = options.volume;
    this.#root = options.root;
    this.#fsGroup = options.fsGroup;
    this.#tree = `..${options.number}`;
    this.#makeDirectory(`${this.#root}/${this.#tree}`);
  }

  /** Appends a part. Errors: `invalid` for a path that leads out, `exhausted` for too many bytes. */
  add(path: string, mode: number, data: string): void {
    const parts = path.split('/');
    if (parts.some((part) => part === '' || part === '.' || part === '..') || parts[0]?.startsWith('..') === true) {
      throw new PodvmError('invalid', `Cannot push file: its path leads out of the volume, got ${printable(path)}`);
    }
    const bytes = this.#parts.decodeBase64(data);
    this.#bytes += bytes.length;
    if (this.#bytes > limits.maxPushVolumeBytes) {
      throw new PodvmError('exhausted', `Cannot push file: volume ${this.volume} has over ${limits.maxPushVolumeBytes} bytes`);
    }
    let directory = `${this.#root}/${this.#tree}`;
    for (const part of parts.slice(0, -1)) {
      directory += `/${part}`;
      if (this.#parts.status(directory) === undefined) this.#makeDirectory(directory);
    }
    const file = `${this.#root}/${this.#tree}/${path}`;
    const fd = this.#parts.open(file, open.writeOnly | open.create | open.append | open.noFollow, 0o600);
    try {
      for (let at = 0; at < bytes.length; ) at += this.#parts.write(fd, bytes, at);
    } finally {
      this.#parts.close(fd);
    }
    if (this.#fsGroup !== undefined) this.#parts.changeOwner(file, -1, this.#fsGroup);
    this.#parts.changeMode(file, this.#fsGroup === undefined ? mode : mode | 0o440);
  }

  /** Switches the volume to this tree: one rename, then names are added and removed, then the old tree goes. */
  commit(): void {
    const link = `${this.#root}/${dataLink}`;
    const old = this.#parts.status(link) === undefined ? undefined : this.#parts.readLink(link);
    const temporary = `${this.#root}/..data_tmp`;
    this.#parts.symlink(this.#tree, temporary);
    this.#parts.rename(temporary, link);
    const wanted = new Set(this.#parts.list(`${this.#root}/${this.#tree}`));
    for (const name of wanted) {
      const visible = `${this.#root}/${name}`;
      if (this.#parts.status(visible) === undefined) this.#parts.symlink(`${dataLink}/${name}`, visible);
    }
    for (const name of this.#parts.list(this.#root)) {
      if (!name.startsWith('..') && !wanted.has(name)) this.#parts.removeFile(`${this.#root}/${name}`);
    }
    if (old !== undefined) this.#parts.removeTree(`${this.#root}/${old}`);
  }

  abort(): void {
    this.#parts.removeTree(`${this.#root}/${this.#tree}`);
  }

  #makeDirectory(path: string): void {
    this.#parts.makeDirectories(path, 0o755);
    if (this.#fsGroup === undefined) return;
    this.#parts.changeOwner(path, -1, this.#fsGroup);
    this.#parts.changeMode(path, 0o2775);
  }
}
