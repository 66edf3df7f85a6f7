import { watch } from 'node:fs';
import { chown, mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { formatReference, nameOf, type Reference } from '#base/image-reference.ts';
import { makeJobCgroup } from '#host/cgroup/job-cgroup.ts';
import { defaultEnv, run, type RunResult } from '#host/process/run.ts';
import { Growth } from '../import/growth.ts';
import { skopeoCalls } from '../jail-calls.ts';
import { killedHelper } from '../import/killed-helper.ts';
import { dropToImageUser, imageUser } from '../import/image-user.ts';
import { brokenImageFix, maxDocumentBytes, ociArchitecture } from '../oci.ts';
import { authsForBoth, rewrittenName } from './registry-rewrites.ts';
import { explainSkopeo } from './skopeo-words.ts';

/** Access to a registry. */
export interface Access {
  /** Allows plain HTTP and any certificate. */
  readonly insecure: boolean;
  /** Default: no credentials. Root's own logins are not used: tenants would pull with them. */
  readonly authFile?: string;
  /** Text of an auth file, used instead of a file. */
  readonly auths?: string;
  /** Mounted for skopeo as /etc/containers: registries.conf (mirrors), certs.d (CAs), policy.json (signatures). */
  readonly containersDirectory: string;
  /** Time without progress after which a registry counts as not answering, in `ms`. */
  readonly answerTimeoutMs: number;
}

/** Sizes of an image's blobs, from its manifest. */
export interface DeclaredSize {
  readonly largestBytes: number;
  readonly allBytes: number;
}

const copyTimeoutMs = 60 * 60 * 1000;
const processorSeconds = 1800;
/**
 * Limits of its cgroup. Most of the memory is for pages that wait to be written; the weight leaves the processor to the
 * node's pods.
 */
const memoryBytes = 1024 ** 3;
const cpuShares = 256;
const processes = 256;
/** Room for skopeo's output besides blobs, and for the growth when it compresses blobs again. */
const roomBytes = 2 * maxDocumentBytes;
const roomPart = 0.01;
const withRoom = (bytes: number) => Math.ceil(bytes * (1 + roomPart)) + roomBytes;

/** Files of the host that skopeo sees besides its own directory; missing ones are left out. */
const readable = ['/etc/resolv.conf', '/etc/hosts', '/etc/nsswitch.conf', '/etc/ssl/certs', '/etc/docker/certs.d'];

export interface SkopeoJail extends Pick<Access, 'containersDirectory'> {
  /** The writable directories, owned by the jail's user: its own, and the layout that it fills, if it copies. */
  readonly directory: string;
  readonly layout?: string;
  readonly maxFileBytes: number;
  /** The descriptor from which the list of system calls is read. */
  readonly calls: number;
  /** The descriptor from which credentials are read into the jail's memory; default: there are none. */
  readonly auths?: number;
}

/** Path in the jail. */
const authPath = '/tmp/auth.json';
const [callsDescriptor, authsDescriptor] = [3, 4];

/** Returns the whole command, except the program itself. */
export function skopeoJail(jail: SkopeoJail): readonly string[] {
  const { directory, layout, containersDirectory, maxFileBytes, calls, auths } = jail;
  return [
    ...['setpriv', ...dropToImageUser, 'prlimit', `--cpu=${processorSeconds}`, '--core=0', `--fsize=${maxFileBytes}`],
    ...['bwrap', '--unshare-all', '--share-net', '--new-session', '--die-with-parent', '--ro-bind', '/usr', '/usr'],
    ...['--symlink', 'usr/bin', '/bin', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64', '/lib64'],
    ...['--dev', '/dev', '--proc', '/proc', '--tmpfs', '/tmp', '--tmpfs', '/var'],
    ...readable.flatMap((path) => ['--ro-bind-try', path, path]),
    ...['--ro-bind-try', containersDirectory, '/etc/containers'],
    ...(auths === undefined ? [] : ['--perms', '0400', '--file', String(auths), authPath]),
    ...(layout === undefined ? [] : ['--bind', layout, '/layout']),
    ...['--bind', directory, '/work', '--chdir', '/work', '--seccomp', String(calls)],
  ];
}

/** Directory of the blobs in a layout. */
export const blobsDirectory = 'blobs/sha256';

/**
 * One image's communication with a registry. skopeo reads the registry's data as an unprivileged user, in a jail with
 * the network, the certificates, its own directory and a list of system calls.
 */
export class Skopeo {
  /** The OCI layout that makeLayout() makes and copyToLayout() fills. Its directory is root's, so that nothing can take its place. */
  readonly layout: string;
  readonly #what: string;
  readonly #directory: string;
  readonly #access: Access;
  /** Text of an auth file. */
  readonly #auths: string | undefined;

  private constructor(what: string, work: string, access: Access, auths: string | undefined) {
    this.#what = what;
    this.#directory = join(work, 'skopeo');
    this.layout = join(work, 'layout');
    this.#access = access;
    this.#auths = auths;
  }

  /**
   * `work`: a directory that the caller removes. Errors: `notFound` when the auth file is missing.
   */
  static async open(reference: Reference, work: string, access: Access): Promise<Skopeo> {
    const what = formatReference(reference);
    const auths = await authsOf(what, nameOf(reference), access);
    const made = new Skopeo(what, work, access, auths);
    await mkdir(made.#directory, { mode: 0o700 });
    await chown(made.#directory, imageUser, imageUser);
    return made;
  }

  /** Returns the manifest or index of a full name, unchanged. Errors: those of `pull`. */
  async inspectRaw(name: string, signal: AbortSignal): Promise<string> {
    const flags = [...this.#flags(''), '--raw', `docker://${name}`];
    return (await this.#run(['inspect', ...flags], this.#access.answerTimeoutMs, signal)).stdout;
  }

  /** Returns the config that the manifest of a full name refers to, unchanged. Errors: those of `pull`. */
  async inspectConfig(name: string, signal: AbortSignal): Promise<string> {
    const flags = [...this.#flags(''), '--raw', '--config', `docker://${name}`];
    return (await this.#run(['inspect', ...flags], this.#access.answerTimeoutMs, signal)).stdout;
  }

  /**
   * Makes the layout, once. These blobs are not copied: a file of holes is in the place of each, and skopeo neither copies nor
   * reads what an OCI layout has (containers/image, `oci/layout`).
   */
  async makeLayout(without: readonly { readonly digest: string; readonly size: number }[]): Promise<void> {
    // All is made and given away before a program of the jail's user can reach it, which could put links there.
    await mkdir(join(this.layout, blobsDirectory), { recursive: true, mode: 0o700 });
    for (const { digest, size } of without) {
      const path = join(this.layout, blobsDirectory, digest.replace('sha256:', ''));
      await writeFile(path, '', { mode: 0o644 });
      await truncate(path, size);
    }
    for (const inner of [blobsDirectory, 'blobs', '']) await chown(join(this.layout, inner), imageUser, imageUser);
  }

  /**
   * Copies one image into the layout, which is made; skopeo checks every blob against its digest. Calls `onBytes` with the bytes copied
   * so far, and `onBlob` with the name of each file in `blobs/sha256` when it is whole, or not at all if the host cannot
   * watch directories. Stops when a blob, or all together, are larger than the manifest says: skopeo itself would write
   * until the registry ends. Errors: `corrupt` for such a size, those of `pull`.
   */
  async copyToLayout(
    name: string,
    declared: DeclaredSize,
    { onBytes, onBlob }: { readonly onBytes: (bytes: number) => void; readonly onBlob: (name: string) => void },
    signal: AbortSignal,
  ): Promise<void> {
    // Leaves uncompressed layers uncompressed, as skopeo also regards layers of unknown compressions.
    const asTheyAre = '--dest-oci-accept-uncompressed-layers';
    const args = ['--quiet', asTheyAre, ...this.#flags('src-'), `docker://${name}`, 'oci:/layout:image'];
    const maxBytes = withRoom(declared.allBytes);
    const maxFileBytes = withRoom(declared.largestBytes);
    using growth = new Growth(this.layout, { onBytes, maxBytes, stallMs: this.#access.answerTimeoutMs });
    using _watching = watchNames(join(this.layout, blobsDirectory), onBlob);
    const stop = AbortSignal.any([signal, growth.stalled, growth.exceeded]);
    try {
      await this.#run(['copy', ...args], copyTimeoutMs, stop, { layout: this.layout, maxFileBytes });
    } catch (error) {
      const isTooLarge = growth.exceeded.aborted || /file too large|SIGXFSZ/i.test(messageOf(error));
      if (isTooLarge && !signal.aborted) throw this.#larger(declared, maxFileBytes, error);
      throw growth.stalled.aborted && !signal.aborted ? this.#silence(error) : error;
    }
  }

  #flags(side: '' | 'src-'): string[] {
    return [
      ...(this.#access.insecure ? [`--${side}tls-verify=false`] : []),
      ...(this.#auths === undefined ? [] : [`--${side}authfile`, authPath]),
    ];
  }

  async #run(
    args: readonly string[],
    timeoutMs: number,
    signal: AbortSignal,
    { layout, maxFileBytes = maxDocumentBytes }: Partial<Pick<SkopeoJail, 'layout' | 'maxFileBytes'>> = {},
  ): Promise<RunResult> {
    const platform = ['--override-os', 'linux', '--override-arch', ociArchitecture()];
    const { containersDirectory } = this.#access;
    const jail = skopeoJail({
      directory: this.#directory,
      ...(layout === undefined ? {} : { layout }),
      containersDirectory,
      maxFileBytes,
      calls: callsDescriptor,
      ...(this.#auths === undefined ? {} : { auths: authsDescriptor }),
    });
    // On a host without cgroups the jail's own limits still apply.
    await using cgroup = await makeJobCgroup('pull', { memoryBytes, cpuShares, processes }).catch(() => undefined);
    const [program = '', ...words] = [...(cgroup?.enter ?? []), ...jail, 'skopeo', ...platform, ...args];
    const inherited = [skopeoCalls(), ...(this.#auths === undefined ? [] : [Buffer.from(this.#auths)])];
    const env = { ...defaultEnv(), HOME: '/work', TMPDIR: '/work' };
    try {
      const options = { signal, env, timeoutMs, maxOutputBytes: maxDocumentBytes, okCodes: 'any', inherited } as const;
      const result = await run(program, words, options);
      if (result.code === 0) return result;
      if ((await cgroup?.wasOutOfMemory()) === true) throw this.#needsTooMuch();
      const killed = killedHelper(`pull ${this.#what}`, 'skopeo', result.code, result.stderr);
      throw killed ?? explainSkopeo(`pull ${this.#what}`, result.stderr);
    } catch (error) {
      throw kindOf(error) === 'timeout' ? this.#silence(error) : error;
    }
  }

  #needsTooMuch(): PodvmError {
    return new PodvmError(
      'exhausted',
      `Cannot pull ${this.#what}: skopeo needs more than ${memoryBytes} bytes of memory`,
      {
        fix: 'Check the registry: images of any size need less.',
      },
    );
  }

  #silence(cause: unknown): PodvmError {
    return new PodvmError('unavailable', `Cannot pull ${this.#what}: the registry does not answer in time`, {
      cause,
      fix: 'Check the registry and the network, then try again.',
    });
  }

  #larger({ largestBytes, allBytes }: DeclaredSize, maxFileBytes: number, cause: unknown): PodvmError {
    const sizes = `the manifest says at most ${largestBytes} bytes for one and ${allBytes} for all`;
    return new PodvmError(
      'corrupt',
      `Cannot pull ${this.#what}: a layer is larger than declared: ${sizes}, got more than ${maxFileBytes}`,
      { cause, fix: brokenImageFix },
    );
  }
}

/** Tells the names that appear in a directory; skopeo renames a blob when it is whole. None if the host cannot watch. */
function watchNames(directory: string, onName: (name: string) => void): Disposable {
  try {
    const watcher = watch(directory, (_event, name) => {
      if (name !== null) onName(name);
    });
    watcher.on('error', () => undefined);
    return { [Symbol.dispose]: () => watcher.close() };
  } catch {
    return { [Symbol.dispose]: () => undefined }; // no inotify instance or watch is left
  }
}

/** Returns the text of an auth file for the image; undefined without credentials. Errors: `notFound`. */
async function authsOf(what: string, name: string, access: Access): Promise<string | undefined> {
  const auths = await givenAuths(what, access);
  if (auths === undefined) return undefined;
  return authsForBoth(auths, name, await rewrittenName(access.containersDirectory, name));
}

async function givenAuths(what: string, { auths, authFile }: Access): Promise<string | undefined> {
  if (auths !== undefined || authFile === undefined) return auths;
  return await readFile(authFile, 'utf8').catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot pull ${what}: the auth file ${authFile} cannot be read`, {
      cause,
      fix: 'Give the path of a file that `podvm login --authfile` wrote.',
    });
  });
}
