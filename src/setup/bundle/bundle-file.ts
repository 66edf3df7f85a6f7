import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, mkdtempDisposable, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { defaultEnv, run, tailOf } from '#host/process/run.ts';
import { isDeaf, startChild } from '#host/process/start-child.ts';
import { guestKernels } from '../guest-kernel.ts';

/**
 * A bundle on disk: a tar archive of three files, so that `tar` and `sha256sum --check` can look into it.
 * - `SHA256SUMS`: digests of the other two;
 * - `bundle.json`: what the bundle is for;
 * - `parts.tar.zst`: the directories of the parts.
 */
const files = { sums: 'SHA256SUMS', manifest: 'bundle.json', parts: 'parts.tar.zst' } as const;

export const bundleSchema = v.object({
  format: v.literal(1),
  /** Version of the podvm that made it; only for messages. */
  podvm: v.string(),
  /** The following are as in `current.json`. */
  agent: v.string(),
  recipes: v.number(),
  generation: v.string(),
  kernelVersion: v.string(),
  qemuVersion: v.string(),
  crunVersion: v.string(),
  guestKernel: v.optional(v.picklist(guestKernels), 'debian'),
  versions: v.record(v.string(), v.string()),
  /** Names of the parts' directories. */
  parts: v.array(v.pipe(v.string(), v.regex(/^[a-z-]+-[0-9a-f]{16}$/))),
});
export type Bundle = Readonly<v.InferOutput<typeof bundleSchema>>;

/**
 * Parts have much in common, such as the modules of a kernel and the disk with them: with a window of 128 MiB, the largest that zstd
 * reads unless told otherwise, the second copy of each costs nothing.
 */
const compression = {
  [constants.ZSTD_c_compressionLevel]: 12,
  [constants.ZSTD_c_enableLongDistanceMatching]: 1,
  [constants.ZSTD_c_windowLog]: 27,
};
const maxManifestBytes = 1024 * 1024;
const timeoutMs = 30 * 60_000;
const fixDamage = 'Copy the bundle again, or make it again: `podvm setup --bundle FILE`.';

/** Options of tar for the same bytes on every machine. All files get the date `epoch`, in seconds since 1970. */
const fixedTar = (epoch: number) => [
  ...['--sort=name', `--mtime=@${epoch}`, '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'],
];

export interface BundleContent {
  readonly bundle: Bundle;
  /** Directory with the parts. */
  readonly from: string;
  readonly epoch: number;
}

/** Writes the bundle. An older one is replaced when the new one is complete. The same parts give the same bytes. */
export async function writeBundle(file: string, content: BundleContent, signal: AbortSignal): Promise<void> {
  const { bundle, from, epoch } = content;
  const work = await mkdtempDisposable(join(dirname(file), '.podvm-bundle-')).catch((cause: unknown) => {
    throw new PodvmError('failedPrecondition', `Cannot write ${file}: ${messageOf(cause)}`, {
      cause,
      fix: 'Name a file in a directory that exists and that you may write to.',
    });
  });
  await using _work = work;
  const parts = ['--create', ...fixedTar(epoch), '--directory', from, ...bundle.parts.toSorted()];
  const plain = join(work.path, 'parts.tar');
  const packed = join(work.path, files.parts);
  await run('tar', [...parts, '--file', plain], { signal, timeoutMs });
  // From a file, because zstd's output depends on how its input is cut, and a pipe cuts it as it comes.
  await pipeline(createReadStream(plain), createZstdCompress({ params: compression }), createWriteStream(packed), {
    signal,
  });
  await rm(plain);
  const manifest = `${JSON.stringify(bundle, null, 2)}\n`;
  await writeFile(join(work.path, files.manifest), manifest);
  const sums = [
    `${sha256Of(manifest)}  ${files.manifest}\n`,
    `${await digestOf(createReadStream(packed), signal)}  ${files.parts}\n`,
  ];
  await writeFile(join(work.path, files.sums), sums.join(''));
  const whole = join(work.path, 'bundle');
  const order = [files.sums, files.manifest, files.parts];
  // Sets the mode, which otherwise depends on the caller's umask.
  const args = ['--create', '--file', whole, ...fixedTar(epoch), '--mode=0644', '--directory', work.path, ...order];
  await run('tar', args, { signal, timeoutMs });
  await run('sync', [whole], { timeoutMs });
  await rename(whole, file);
}

/**
 * Reads the description of a bundle and checks its digest, but not that of the parts. Errors: `notFound`, `corrupt`,
 * `unsupported` for another format.
 */
export async function readBundle(file: string, signal: AbortSignal): Promise<Bundle> {
  await access(file).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot read ${file}: ${messageOf(cause)}`, {
      cause,
      fix: 'Check the path of the bundle.',
    });
  });
  const text = await memberOf(file, files.manifest, signal);
  if (sha256Of(text) !== (await sumsOf(file, signal))[files.manifest])
    throw damaged(file, 'its description was changed');
  const { format } = v.parse(v.object({ format: v.number() }), JSON.parse(text));
  if (format !== 1) {
    throw new PodvmError('unsupported', `Cannot read ${file}: expected a bundle of format 1, got ${format}`, {
      fix: 'Make the bundle with this version of podvm.',
    });
  }
  return v.parse(bundleSchema, JSON.parse(text));
}

/**
 * Unpacks the parts into an empty directory, after checking their digest. Errors: `corrupt`, before anything is unpacked;
 * `exhausted` for a full disk.
 */
export async function unpackParts(file: string, into: string, signal: AbortSignal): Promise<void> {
  const expected = (await sumsOf(file, signal))[files.parts];
  const take = ['--extract', '--to-stdout', '--file', file, files.parts];
  let digest = '';
  await fromTar(take, signal, async (out) => {
    digest = await digestOf(out, signal);
  }).catch((cause: unknown) => {
    signal.throwIfAborted();
    throw damaged(file, messageOf(cause));
  });
  if (digest !== expected) throw damaged(file, `the digest of ${files.parts} is ${digest}, expected ${expected}`);
  const unpack = ['--extract', '--preserve-permissions', '--same-owner', '--numeric-owner', '--directory', into];
  await fromTar(take, signal, (out) =>
    toTar(unpack, signal, (tar) => pipeline(out, createZstdDecompress(), tar, { signal })),
  );
}

async function sumsOf(file: string, signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
  const text = await memberOf(file, files.sums, signal);
  return Object.fromEntries(
    [...text.matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map(([, sum = '', name = '']) => [name, sum]),
  );
}

async function memberOf(file: string, name: string, signal: AbortSignal): Promise<string> {
  try {
    const args = ['--extract', '--to-stdout', '--occurrence=1', '--file', file, name];
    return (await run('tar', args, { signal, timeoutMs, maxOutputBytes: maxManifestBytes })).stdout;
  } catch (cause) {
    signal.throwIfAborted();
    throw damaged(file, messageOf(cause));
  }
}

const damaged = (file: string, why: string) =>
  new PodvmError('corrupt', `Cannot read ${file}: it is damaged, or not a bundle of podvm: ${why}`, { fix: fixDamage });

const sha256Of = (text: string) => createHash('sha256').update(text).digest('hex');

async function digestOf(content: Readable, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(content, hash, { signal });
  return hash.digest('hex');
}

const fromTar = (args: readonly string[], signal: AbortSignal, use: (out: Readable) => Promise<void>) =>
  withTar(args, signal, async ({ stdin, stdout }) => {
    stdin.end();
    await use(stdout);
  });

/** Ignores a closed pipe: tar reads no further than the end mark of the archive. */
const toTar = (args: readonly string[], signal: AbortSignal, use: (into: Writable) => Promise<void>) =>
  withTar(args, signal, async ({ stdin, stdout }) => {
    stdout.resume();
    await use(stdin).catch((error: unknown) => {
      if (!isDeaf(error)) throw error;
    });
  });

/**
 * Runs tar, and `use` with its streams, until both have ended. Errors: tar's last line comes before the errors of
 * `use`.
 */
async function withTar(
  args: readonly string[],
  signal: AbortSignal,
  use: (streams: { readonly stdin: Writable; readonly stdout: Readable }) => Promise<void>,
): Promise<void> {
  const stdio = ['pipe', 'pipe', 'pipe'] as const;
  const child = await startChild('tar', args, { stdio: [...stdio], env: defaultEnv(), signal, killSignal: 'SIGKILL' });
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null || stderr === null) throw new PodvmError('internal', 'tar has no pipes');
  const words: Buffer[] = [];
  stderr.on('data', (chunk: Buffer) => void words.push(chunk));
  const ended = new Promise<number | null>((resolve) => void child.once('close', resolve));
  const using = use({ stdin, stdout }).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  const [failed, code] = await Promise.all([using, ended]);
  signal.throwIfAborted();
  if (code !== 0) {
    const tail = tailOf(Buffer.concat(words).toString('utf8'));
    const full = tail.some((line) => printable(line).includes('No space left on device'));
    const why = printable(tail.at(-1) ?? `it ended with ${code}`);
    throw new PodvmError(full ? 'exhausted' : 'internal', `Cannot run tar: ${why}`, { tail });
  }
  if (failed !== undefined) throw failed.error;
}
