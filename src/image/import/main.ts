import { json } from 'node:stream/consumers';
import { type ErrorKind, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { flattenLayers } from './flatten-layers.ts';
import { firstFile, type ImportAnswer, type ImportFailure, type ImportJob, isReportedKind } from './job.ts';
import { unpackArchive } from './unpack-archive.ts';

/**
 * The program that reads images: takes a job on standard input and the image's files as descriptors, and writes an
 * answer to standard output. It runs in the jail of `jail.ts`, where hostile bytes reach nothing valuable.
 */
const work = '/work';
const maxWordsChars = 1000;

async function answerTo(job: ImportJob): Promise<ImportAnswer> {
  try {
    return await resultOf(job);
  } catch (error) {
    return { error: describe(error) };
  }
}

async function resultOf(job: ImportJob): Promise<ImportAnswer> {
  switch (job.kind) {
    case 'flatten': {
      const layers = job.diffIds.map((diffId, at) => ({ descriptor: firstFile + at, diffId }));
      return await flattenLayers(layers, { work, limits: job.limits });
    }
    case 'unpack':
      return await unpackArchive(firstFile, { path: job.path, limits: job.limits, work });
  }
}

function describe(error: unknown): ImportFailure {
  const isFull = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
  if (isFull) return { kind: 'exhausted', message: 'Cannot add the image: the disk is full', fix: 'Free some space.' };
  const { kind, message, fix, cause, tail } =
    error instanceof PodvmError
      ? error
      : new PodvmError('internal', 'Cannot read the image: internal error of podvm', { cause: error });
  return {
    kind: reported(kind),
    message: printable(message, maxWordsChars),
    ...(fix === undefined ? {} : { fix: printable(fix, maxWordsChars) }),
    ...(cause === undefined ? {} : { cause: printable(messageOf(cause), maxWordsChars) }),
    tail: tail.map((line) => printable(line, maxWordsChars)),
  };
}

const reported = (kind: ErrorKind) => (isReportedKind(kind) ? kind : 'internal');

// SAFE: podvm itself writes the job.
process.stdout.write(JSON.stringify(await answerTo((await json(process.stdin)) as ImportJob)));
