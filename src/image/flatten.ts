import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, chown, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { defaultEnv } from '#host/run.ts';
import type { Compression } from './oci.ts';

export interface Layer {
  /** Absolute path of the blob. */
  readonly path: string;
  readonly compression: Compression;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: string;
}

export interface FlattenOptions {
  /** Directory of extracted packages that holds `mkfs.erofs`; all that the jail sees of programs. */
  readonly sysroot: string;
  /** Empty directory for the work; the file is made in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
  /** All layers together, uncompressed. */
  readonly maxBytes: number;
}

/** Whoever breaks mkfs.erofs from inside a tar gets this user's rights, in a jail, and no others: `nobody`. */
const jailedUid = 65_534;
const cpuSeconds = 600;
const memoryBytes = 2 * 1024 * 1024 * 1024;

/**
 * Merges layers, lowest first, into one read-only EROFS file and returns its path. Whiteouts and opaque directories
 * are applied and gone; the same layers give the same bytes. Each layer is one run of mkfs.erofs that adds to the
 * file, fed by a stream that checks the layer's digest: no tar is ever unpacked.
 * Errors: `corrupt` (digest, truncated or malformed tar), `exhausted` (size, disk), `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<string> {
  const work = join(options.directory, 'jail');
  await mkdir(work, { mode: 0o700 });
  await chown(work, jailedUid, jailedUid);
  const file = join(work, 'rootfs.erofs');
  const budget = { left: options.maxBytes };
  for (const [index, layer] of layers.entries()) await addLayer(layer, index, options, budget);
  await chown(file, 0, 0);
  await chmod(file, 0o444);
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return file;
}

async function addLayer(layer: Layer, index: number, options: FlattenOptions, budget: { left: number }): Promise<void> {
  const work = join(options.directory, 'jail');
  const child = spawn('setpriv', jailedMkfs(options.sysroot, work, index > 0), {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: defaultEnv(),
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(-4096);
  });
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'));
  });
  const meter = new LayerMeter(budget);
  const fed = pipeline([createReadStream(layer.path), ...decompressor(layer.compression), meter, child.stdin], {
    signal: options.signal,
  }).catch((error: unknown) => {
    child.kill('SIGKILL');
    return error;
  });
  const [code, feedError] = await Promise.all([ended, fed]);
  if (options.signal.aborted) throw new PodvmError('cancelled', 'Cannot flatten the image: cancelled');
  if (feedError instanceof PodvmError) throw feedError;
  const isPipeBroken = (feedError as NodeJS.ErrnoException | undefined)?.code === 'EPIPE';
  if (code === 0 && feedError !== undefined && !isPipeBroken)
    throw badLayer(index, 'it is damaged or cut short', feedError, said);
  if (code !== 0)
    throw mkfsFailure(index, feedError !== undefined && !isPipeBroken ? feedError : undefined, code, said);
  if (isPipeBroken) throw badLayer(index, 'there is more after the end of its tar than fits a tar', feedError, said);
  if (meter.digest() !== layer.diffId) {
    await rm(join(work, 'rootfs.erofs'), { force: true });
    throw badLayer(index, `its content has not the digest ${layer.diffId}`, undefined, '');
  }
}

function jailedMkfs(sysroot: string, work: string, isIncremental: boolean): string[] {
  const drop = [
    `--reuid=${jailedUid}`,
    `--regid=${jailedUid}`,
    '--clear-groups',
    '--no-new-privs',
    '--inh-caps=-all',
    '--bounding-set=-all',
  ];
  const limits = ['prlimit', `--cpu=${cpuSeconds}`, `--as=${memoryBytes}`, '--core=0'];
  const jail = [
    ...['bwrap', '--unshare-all', '--new-session', '--die-with-parent', '--ro-bind', join(sysroot, 'usr'), '/usr'],
    ...['--symlink', 'usr/lib64', '/lib64', '--symlink', 'usr/lib', '/lib', '--dev', '/dev', '--proc', '/proc'],
    ...['--tmpfs', '/tmp', '--bind', work, '/work', '--chdir', '/work'],
  ];
  // Fixed time and UUID: the same layers give the same file. `--aufs` reads OCI's whiteouts, `--ovlfs-strip` applies
  // them and leaves none of overlayfs's.
  const mkfs = [
    'mkfs.erofs',
    '--tar=f',
    '--aufs',
    '--ovlfs-strip=1',
    '--sort=none',
    '-T0',
    '--mkfs-time',
    '-Uclear',
    '-d0',
  ];
  return [...drop, ...limits, ...jail, ...mkfs, ...(isIncremental ? ['--incremental=data'] : []), 'rootfs.erofs'];
}

function decompressor(compression: Compression): Transform[] {
  if (compression === 'none') return [];
  return [compression === 'gzip' ? createGunzip() : createZstdDecompress()];
}

/** Counts and digests what passes, and stops a decompression bomb. */
class LayerMeter extends Transform {
  readonly #hash = createHash('sha256');
  readonly #budget: { left: number };

  constructor(budget: { left: number }) {
    super();
    this.#budget = budget;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#hash.update(chunk);
    this.#budget.left -= chunk.length;
    if (this.#budget.left < 0) {
      done(new PodvmError('exhausted', 'Cannot flatten the image: it is larger than the limit when uncompressed'));
    } else done(null, chunk);
  }

  digest(): string {
    return `sha256:${this.#hash.digest('hex')}`;
  }
}

function mkfsFailure(index: number, feedError: unknown, code: number | string, said: string): PodvmError {
  if (/No space left|Error 28/.test(said)) {
    return new PodvmError('exhausted', 'Cannot flatten the image: the disk is full', {
      fix: 'Free some space or remove images with `podvm image rm`.',
    });
  }
  const reason =
    feedError === undefined ? `its tar is malformed (mkfs.erofs ended with ${code})` : 'it is damaged or cut short';
  return badLayer(index, reason, feedError, said);
}

function badLayer(index: number, reason: string, cause: unknown, said: string): PodvmError {
  const tail = said
    .trimEnd()
    .split('\n')
    .filter((line) => line !== '')
    .slice(-4)
    .map((line) => printable(line));
  return new PodvmError('corrupt', `Cannot use layer ${index + 1} of the image: ${reason}`, { cause, tail });
}
