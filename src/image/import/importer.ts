import assert from 'node:assert/strict';
import { chown, type FileHandle, mkdir } from 'node:fs/promises';
import { totalmem } from 'node:os';
import type { Readable } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { guestText, printable } from '#base/guest-text.ts';
import { createGate } from '#host/gate.ts';
import { type JobCgroup, makeJobCgroup } from '#host/cgroup/job-cgroup.ts';
import { defaultEnv, exitCodeOf, giveBytes, tailOf } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { Growth } from './growth.ts';
import { readerCalls } from '../jail-calls.ts';
import { killedHelper } from './killed-helper.ts';
import { imageUser } from './image-user.ts';
import type { ImageLimits } from '../limits.ts';
import { jailedImport } from './jail.ts';
import {
  firstFile,
  type ImportAnswer,
  type ImportFailure,
  type ImportJob,
  type ImportTask,
  readAnswer,
} from './job.ts';
import { StoredLayerFault } from './layer-fault.ts';
import { bundledReader } from './reader-program.ts';

export interface ImportOptions {
  /** Action for messages, such as `flatten the image`. */
  readonly doing: string;
  readonly limits: ImageLimits;
  /** Directory for the output of the job, made here and owned by the jail's user. */
  readonly work: string;
  /** Layers that arrive during the job; default: the job's files are all. */
  readonly arriving?: ArrivingLayers;
  readonly signal: AbortSignal;
}

export interface ArrivingLayers {
  /** Directory in which they appear. */
  readonly directory: string;
  /** Numbers of those that are whole, one in each line, until all are. */
  readonly numbers: Readable;
}

/** Limit of images that are read at a time; more would only compete for memory and processor. */
const maxImports = 2;
/** Limit on an import's memory, as a part of the node's. */
const memoryPart = 0.5;
/** A machine has 1024 per core: imports leave the processor to the node's pods. */
const cpuShares = 256;
const maxProcesses = 128;
/** Room for a file system besides the content of its files, in bytes. */
const fileRoomBytes = 4 * 1024 ** 3;
const maxAnswerBytes = 24 * 1024 ** 2;
const maxWordsChars = 4096;
const gate = createGate(maxImports);

/** Result of the importing process. */
interface Ending {
  readonly code: number;
  readonly said: string;
  readonly words: string;
  readonly stopped: 'cancelled' | 'late' | 'large' | undefined;
}

/**
 * Reads an image in its own process, as an unprivileged user in a jail without a network, in a cgroup if the host has
 * them, with bounded memory, processor, time and disk. Hostile input can at most end that process. It starts while its task is
 * still being found out. Errors: those of the task; those that the process reports; `exhausted` when a bound is met, `unavailable` when it was killed, `failedPrecondition` when the
 * jail cannot be made, `cancelled`.
 */
export async function runImport(
  task: ImportTask | Promise<ImportTask>,
  files: readonly FileHandle[],
  options: ImportOptions,
): Promise<Exclude<ImportAnswer, { error: unknown }>> {
  const { doing, limits, work, arriving, signal } = options;
  using _turn = await gate.enter(signal);
  await mkdir(work, { mode: 0o700 });
  await chown(work, imageUser, imageUser);
  const memoryBytes = Math.min(limits.maxImportMemoryBytes, Math.floor(totalmem() * memoryPart));
  // On a host without cgroups the jail's own limits still apply.
  await using cgroup = await makeJobCgroup('import', { memoryBytes, cpuShares, processes: maxProcesses }).catch(
    () => undefined,
  );
  const maxFileBytes = limits.maxImageBytes + fileRoomBytes;
  const calls = firstFile + files.length;
  const layers = arriving === undefined ? {} : { layers: arriving.directory };
  const text = await bundledReader();
  const program = text === undefined ? {} : { program: calls + 1 };
  const jail = jailedImport({ work, ...layers, memoryBytes, maxFileBytes, calls, ...program });
  const given = text === undefined ? [readerCalls()] : [readerCalls(), text];
  const command = [...(cgroup?.enter ?? []), ...jail];
  const ending = await runJailed({ command, files, given, maxWorkBytes: maxFileBytes }, task, options);
  const answer = ending.code === 0 && ending.stopped === undefined ? readAnswer(ending.said) : undefined;
  if (answer !== undefined && !('error' in answer)) return answer;
  throw (await limitOf(limits, ending, memoryBytes, cgroup, doing)) ?? toldError(answer) ?? deathOf(doing, ending);
}

/** A jail and the descriptors that its programs inherit, from `firstFile` on: files, then pipes from which these bytes are read. */
interface Jailed {
  readonly command: readonly string[];
  readonly files: readonly FileHandle[];
  readonly given: readonly (Uint8Array | string)[];
  readonly maxWorkBytes: number;
}

async function runJailed(
  { command, files, given, maxWorkBytes }: Jailed,
  task: ImportTask | Promise<ImportTask>,
  { doing, limits, work, arriving, signal }: ImportOptions,
): Promise<Ending> {
  const deadline = new AbortController();
  const refused = new AbortController();
  using growth = new Growth(work, { maxBytes: maxWorkBytes });
  const stop = AbortSignal.any([signal, deadline.signal, growth.exceeded, refused.signal]);
  const [program = '', ...args] = command;
  const child = await startChild(program, args, {
    failing: `Cannot ${doing}: cannot run ${program}`,
    stdio: ['pipe', 'pipe', 'pipe', ...files.map(({ fd }) => fd), ...given.map(() => 'pipe' as const)],
    detached: true, // podvm handles Ctrl-C itself
    env: defaultEnv(),
  });
  const kill = () => void child.kill('SIGKILL'); // ends bubblewrap and all processes in the jail
  const ended = new Promise<number>((resolve) => {
    child.once('close', (code, killedBy) => resolve(exitCodeOf(code, killedBy))); // no process of the jail holds the pipes
  });
  const [stdin, stdout, stderr] = child.stdio;
  assert(stdin !== null && stdout !== null && stderr !== null);
  const said = collect(stdout, kill);
  let words = '';
  stderr.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString('latin1')).slice(-maxWordsChars);
  });
  for (const [at, bytes] of given.entries()) giveBytes(child, firstFile + files.length + at, bytes);
  stdin.on('error', () => undefined); // a process that does not read its job reports why by its exit
  const give = async () => {
    const job: ImportJob = { ...(await task), limits };
    stdin.write(`${JSON.stringify(job)}\n`);
    if (arriving === undefined) stdin.end();
    else arriving.numbers.pipe(stdin);
  };
  give().catch((error: unknown) => refused.abort(error));
  let timer: NodeJS.Timeout | undefined;
  stdin.once('finish', () => {
    timer = setTimeout(() => deadline.abort(), limits.maxImportMs); // a slow registry has its own limits
  });
  stop.addEventListener('abort', kill, { once: true });
  if (stop.aborted) kill();
  try {
    const code = await ended;
    refused.signal.throwIfAborted();
    const stopped = signal.aborted
      ? 'cancelled'
      : growth.exceeded.aborted
        ? 'large'
        : deadline.signal.aborted
          ? 'late'
          : undefined;
    return { code, said: said(), words, stopped };
  } finally {
    clearTimeout(timer);
    arriving?.numbers.unpipe(stdin);
    stop.removeEventListener('abort', kill);
  }
}

/** Collects the output, up to the longest answer. */
function collect(stream: Readable, onTooMuch: () => void): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) onTooMuch();
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

/** Returns the limit that the job has exceeded, if any. */
async function limitOf(
  limits: ImageLimits,
  { code, words, stopped }: Ending,
  memoryBytes: number,
  cgroup: JobCgroup | undefined,
  doing: string,
): Promise<PodvmError | undefined> {
  const exhausted = (reason: string) =>
    new PodvmError('exhausted', `Cannot ${doing}: ${reason}`, { fix: 'Use a smaller image, with fewer files.' });
  if (stopped === 'cancelled') return new PodvmError('cancelled', `Cannot ${doing}: cancelled`);
  if (stopped === 'large') return exhausted('it takes more disk space than the limit for an image');
  if (stopped === 'late' || code === cpuTimeCode) return exhausted(`it takes more than ${limits.maxImportMs / 1000} s`);
  if ((await cgroup?.wasOutOfMemory()) === true || (code !== 0 && /out of memory|heap limit/i.test(words)))
    return exhausted(`it needs more memory than reading an image may use, ${memoryBytes / 1024 ** 2} MiB`);
  return undefined;
}

/** 128 and SIGXCPU. */
const cpuTimeCode = 152;

function toldError(answer: { readonly error: ImportFailure } | undefined): PodvmError | undefined {
  if (answer === undefined) return undefined;
  const { kind, message, fix, cause, tail = [], isStored = false } = answer.error;
  return new (isStored ? StoredLayerFault : PodvmError)(kind, printable(message, maxWordsChars), {
    ...(fix === undefined ? {} : { fix: printable(fix, maxWordsChars) }),
    ...(cause === undefined ? {} : { cause: new Error(printable(cause, maxWordsChars)) }),
    tail: tail.map(guestText),
  });
}

function deathOf(doing: string, { code, words }: Ending): PodvmError {
  if (/^(?:bwrap|setpriv|prlimit): |EACCES|Permission denied|MODULE_NOT_FOUND/m.test(words)) {
    return new PodvmError('failedPrecondition', `Cannot ${doing}: the jail for reading images cannot be made`, {
      tail: tailOf(words),
      fix: 'Run `podvm doctor`; podvm, its node_modules and set-up directory must be readable by others (`chmod -R o+rX`).',
    });
  }
  const killed = killedHelper(doing, 'the process that reads images', code, words);
  return (
    killed ?? new PodvmError('internal', `Cannot ${doing}: its process ended with ${code}`, { tail: tailOf(words) })
  );
}
