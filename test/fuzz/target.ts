import fc from 'fast-check';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { readCorpus } from './corpus.ts';

/** A program or a rule set to fuzz, with the form of its input and the judgement of its behaviour. */
export interface TargetSpec<Run> {
  readonly name: string;
  /** Why it cannot be fuzzed on this host. */
  readonly whyNot: string | undefined;
  readonly runs: fc.Arbitrary<Run>;
  /** Schema of the runs in the corpus. */
  readonly schema: v.GenericSchema<unknown, Run>;
  /** Timeout of one run, in `ms`. */
  readonly runTimeoutMs: number;
  open(): Promise<Bench<Run>>;
}

export interface Bench<Run> extends AsyncDisposable {
  /** Runs it. Throws on a fault; the next run gets a restored target. */
  give(run: Run): Promise<void>;
  /** Checks that are only possible at the end. */
  finish(): Promise<void>;
}

export interface Bounds {
  readonly runs?: number;
  readonly minutes?: number;
  readonly seed?: number;
}

export interface Outcome {
  readonly runs: number;
  readonly seed: number;
  readonly found?: { readonly run: unknown; readonly error: unknown };
}

export interface Target {
  readonly name: string;
  readonly whyNot: string | undefined;
  /** Runs the corpus, then generated runs. The first one that fails is reduced as far as the time allows. */
  fuzz(bounds: Bounds): Promise<Outcome>;
}

const msPerMinute = 60_000;

export function defineTarget<Run>(spec: TargetSpec<Run>): Target {
  return { name: spec.name, whyNot: spec.whyNot, fuzz: (bounds) => fuzz(spec, bounds) };
}

async function fuzz<Run>(spec: TargetSpec<Run>, bounds: Bounds): Promise<Outcome> {
  const { runs = Number.MAX_SAFE_INTEGER, minutes, seed = (Date.now() ^ process.pid) | 0 } = bounds;
  await using bench = await spec.open();
  let given = 0;
  let last = Promise.resolve();
  const give = async (run: Run) => {
    given += 1;
    last = bench.give(run);
    await last;
  };
  const corpus = await readCorpus(spec.name);
  if (corpus.size === 0) throw new PodvmError('internal', `Cannot fuzz ${spec.name}: its corpus is empty`);
  for (const [file, kept] of corpus) {
    const run = v.parse(spec.schema, kept);
    try {
      await give(run);
    } catch (cause) {
      return { runs: given, seed, found: { run, error: new Error(`corpus/${spec.name}/${file}`, { cause }) } };
    }
  }
  const result = await fc.check(fc.asyncProperty(spec.runs, give), {
    seed,
    numRuns: runs,
    timeout: spec.runTimeoutMs,
    ...(minutes === undefined ? {} : { interruptAfterTimeLimit: minutes * msPerMinute, markInterruptAsFailure: false }),
  });
  if (result.failed)
    return { runs: given, seed, found: { run: result.counterexample?.[0], error: result.errorInstance } };
  await last; // the time may have been up within it
  await bench.finish();
  return { runs: given, seed };
}

/** Seed of the runs in tests, which are always the same; `npm run fuzz` makes others. */
const briefSeed = 20_261_129;

/** Runs the corpus and a few generated runs, for tests. Throws a found fault with the seed to reproduce it. */
export async function fuzzBriefly(target: Target, runs: number): Promise<void> {
  const { seed, found } = await target.fuzz({ runs, seed: briefSeed });
  if (found === undefined) return;
  const text = `seed ${seed}: ${JSON.stringify(found.run)}`;
  throw new PodvmError('internal', `Cannot go on: ${target.name} is broken by a run, ${text}`, { cause: found.error });
}
