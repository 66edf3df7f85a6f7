import { chmod, chown, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '#host/process/run.ts';

/** Owner and mode of files that a kubelet makes; with an fsGroup, the group's. */
export interface Owned {
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
}

/**
 * A pod's directory as a kubelet keeps it (`/var/lib/kubelet/pods/<uid>`), with the real mounts. Disposing unmounts all
 * of them.
 */
export class KubeletDirectory implements AsyncDisposable {
  readonly path: string;
  readonly #root: string;
  readonly #mounts: string[] = [];
  #versions = 0;

  private constructor(root: string, podUid: string) {
    this.#root = root;
    this.path = join(root, 'pods', podUid);
  }

  static async open(podUid: string): Promise<KubeletDirectory> {
    const directory = new KubeletDirectory(await mkdtemp('/var/tmp/podvm-kubelet-'), podUid);
    await mkdir(directory.path, { recursive: true });
    return directory;
  }

  /** A volume whose files are written as a new version, and shown by one rename; called again, the next version. */
  async write(
    plugin: 'configmap' | 'secret' | 'projected',
    name: string,
    files: Readonly<Record<string, string>>,
    owned: Owned = {},
  ): Promise<string> {
    const volume = join(this.path, 'volumes', `kubernetes.io~${plugin}`, name);
    if (this.#versions === 0 || !this.#mounts.includes(volume)) {
      await mkdir(volume, { recursive: true });
      if (plugin !== 'configmap' && !this.#mounts.includes(volume)) await this.#mount(volume, '-t', 'tmpfs', 'tmpfs');
      await own(volume, {
        mode: owned.gid === undefined ? 0o777 : 0o2777,
        ...(owned.gid === undefined ? {} : { gid: owned.gid }),
      });
    }
    this.#versions += 1;
    const version = `..2026_01_01.${this.#versions}`;
    await mkdir(join(volume, version));
    for (const [file, text] of Object.entries(files)) {
      await writeFile(join(volume, version, file), text);
      await own(join(volume, version, file), { mode: 0o644, ...owned });
      await symlink(`..data/${file}`, join(volume, file)).catch(() => {}); // there from the version before
    }
    await symlink(version, join(volume, '..data_tmp'));
    await rename(join(volume, '..data_tmp'), join(volume, '..data'));
    return volume;
  }

  async emptyDir(name: string, owned: Owned = {}): Promise<string> {
    const path = join(this.path, 'volumes/kubernetes.io~empty-dir', name);
    await mkdir(path, { recursive: true });
    await own(path, { mode: 0o777, ...owned });
    return path;
  }

  async emptyDirInMemory(name: string, sizeMiB: number): Promise<string> {
    const path = await this.emptyDir(name);
    await this.#mount(path, '-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'tmpfs');
    await own(path, { mode: 0o777 });
    return path;
  }

  async etcHosts(text: string): Promise<string> {
    const path = join(this.path, 'etc-hosts');
    await writeFile(path, text);
    return path;
  }

  /** A bind mount of `target`, which is in the volume, as for a container's mount with a subPath. */
  async subPath(volume: string, container: string, index: number, target: string, isFile = false): Promise<string> {
    const path = join(this.path, 'volume-subpaths', volume, container, String(index));
    await mkdir(dirname(path), { recursive: true });
    if (isFile) await writeFile(path, '');
    else {
      await mkdir(target, { recursive: true });
      await mkdir(path);
    }
    await this.#mount(path, '--bind', target);
    return path;
  }

  async #mount(point: string, ...argv: string[]): Promise<void> {
    await run('mount', [...argv, point]);
    this.#mounts.push(point);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const point of this.#mounts.splice(0).toReversed()) await run('umount', [point]);
    await rm(this.#root, { recursive: true });
  }
}

async function own(path: string, { uid = 0, gid = 0, mode = 0o644 }: Owned): Promise<void> {
  await chown(path, uid, gid);
  await chmod(path, mode);
}
