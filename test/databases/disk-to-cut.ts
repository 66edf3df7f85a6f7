import assert from 'node:assert/strict';
import { mkdir, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';

/**
 * A disk of the host whose power can be cut: an ext4 in an image file. A cut ends all writes to the image at one
 * moment, so that it contains only data that the host's kernel had written by then. Data in the page cache, and names
 * that were not in the journal, are lost, as on a disk of a host without power.
 */
export class DiskToCut implements AsyncDisposable {
  /** Its mount point. */
  readonly path: string;
  readonly #image: string;
  /** The loop device; undefined while it is not mounted. */
  #device: string | undefined;

  private constructor(directory: string) {
    this.path = join(directory, 'disk');
    this.#image = join(directory, 'disk.img');
  }

  static async make(directory: string, sizeMiB: number): Promise<DiskToCut> {
    const disk = new DiskToCut(directory);
    await writeFile(disk.#image, '');
    await truncate(disk.#image, sizeMiB * 1024 * 1024);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', disk.#image]);
    await mkdir(disk.path);
    await disk.#mount();
    return disk;
  }

  /** By a loop device of its own: another mount namespace may still have the mount from before the cut, and its device. */
  async #mount(): Promise<void> {
    const { stdout } = await run('losetup', ['--find', '--show', this.#image]);
    this.#device = stdout.trim();
    await run('mount', [this.#device, this.path]);
  }

  async #unmount(): Promise<void> {
    if (this.#device === undefined) return;
    await run('umount', [this.path]);
    await run('losetup', ['--detach', this.#device]);
    this.#device = undefined;
  }

  /** Power is lost now. Whatever uses the disk gets errors from here on. */
  async cut(): Promise<void> {
    const [synced, lost] = [join(this.path, 'synced'), join(this.path, 'lost')];
    await using file = await open(synced, 'w');
    await file.writeFile('synced');
    await file.sync();
    await writeFile(lost, 'lost');
    await run('xfs_io', ['-x', '-c', 'shutdown', this.path]); // without -f: not even the journal is written out
  }

  /** Power is there again. Nothing may use the disk any more. Errors: the cut lost no more than a synced disk would. */
  async restore(): Promise<void> {
    await this.#unmount();
    await this.#mount(); // replays the journal
    assert.equal(await readFile(join(this.path, 'synced'), 'utf8'), 'synced');
    const unsynced = await readFile(join(this.path, 'lost'), 'utf8').catch(() => '');
    assert.equal(unsynced, '', 'the cut kept what was never synced, and would not show a missing sync');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#unmount();
    await rm(this.path, { recursive: true });
    await rm(this.#image);
  }
}
