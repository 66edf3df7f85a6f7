import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type ErrorKind, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { Arrivals } from './arrivals.ts';
import { flattenLayers } from './flatten-layers.ts';
import {
  type BlobLayer,
  firstFile,
  type ImportAnswer,
  type ImportFailure,
  type ImportJob,
  isReportedKind,
  layersDirectory,
} from './job.ts';
import { layerFault, StoredLayerFault } from './layer-fault.ts';
import type { ComingLayer } from './layer-stream.ts';
import { openLayer } from './open-layer.ts';
import { unpackArchive } from './unpack-archive.ts';

/**
 * The program that reads images: takes a job and the arrival of its layers on standard input, other files of the image
 * as descriptors, and writes an answer to standard output. It runs in the jail of `jail.ts`, where hostile bytes reach nothing valuable.
 */
const work = '/work';
const maxWordsChars = 1000;

async function answerTo(job: ImportJob, arrivals: Arrivals): Promise<ImportAnswer> {
  try {
    return await resultOf(job, arrivals);
  } catch (error) {
    return { error: describe(error) };
  }
}

async function resultOf(job: ImportJob, arrivals: Arrivals): Promise<ImportAnswer> {
  switch (job.kind) {
    case 'flatten': {
      const layers = job.layers.map((layer, at) => ('members' in layer ? layer : comingLayer(layer, at, arrivals)));
      return await flattenLayers(layers, { work, limits: job.limits });
    }
    case 'unpack':
      return await unpackArchive(firstFile, { path: job.path, limits: job.limits, work });
  }
}

function comingLayer({ blob, ...layer }: BlobLayer, at: number, arrivals: Arrivals): ComingLayer {
  if (typeof blob === 'number') {
    const inherited = { fd: blob, [Symbol.asyncDispose]: () => Promise.resolve() };
    return { ...layer, open: () => Promise.resolve(inherited) };
  }
  const open = async () => {
    await arrivals.of(at);
    return await openLayer(join(layersDirectory, blob), layerFault(at));
  };
  return { ...layer, open };
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
    ...(error instanceof StoredLayerFault ? { isStored: true } : {}),
  };
}

const reported = (kind: ErrorKind) => (isReportedKind(kind) ? kind : 'internal');

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { value: first = '' } = (await lines.next()) as { value?: string };
const job = JSON.parse(first) as ImportJob; // SAFE: podvm itself writes the job
const arrivals = new Arrivals({ [Symbol.asyncIterator]: () => lines });
process.stdout.write(JSON.stringify(await answerTo(job, arrivals)));
process.stdin.destroy(); // after an error, more layers may come
