import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { messageOf } from '#base/errors.ts';
import { keep, readCorpus } from './corpus.ts';
import { askAll, type Step, steps } from './requests.ts';
import { openServerBench, whyNoServer } from './scripted-guest.ts';

/*
 * `npm run fuzz -- --minutes 10`: the file server under address and undefined-behaviour checks, asked as long as that by
 * a guest that is no kernel. What ends it is made as small as it can be and kept in test/fuzz/corpus.
 */
const runsOfServer = 500;
const say = (text: string) => process.stderr.write(`fuzz: ${text}\n`);

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } });
  if (whyNoServer !== undefined) {
    say(`cannot run: ${whyNoServer}`);
    return 1;
  }
  await using bench = await openServerBench();
  let guest = await bench.start();
  let asked = 0;
  const ask = async (run: readonly Step[]) => {
    asked += 1;
    if (asked % runsOfServer === 0) {
      await guest.leave(); // with nothing to complain of; it has many files open by now
      guest = await bench.start();
    }
    try {
      await askAll(guest, run);
    } catch (error) {
      guest = await bench.start(); // the next, smaller one is asked of a living server
      throw error;
    }
  };
  for (const run of (await readCorpus()).values()) await ask(run);
  const options = {
    numRuns: Number.MAX_SAFE_INTEGER,
    timeout: 20_000,
    interruptAfterTimeLimit: Number(values.minutes) * 60_000,
    markInterruptAsFailure: false,
  };
  const result = await fc.check(fc.asyncProperty(steps, ask), options);
  say(`${asked} runs, seed ${result.seed}`);
  if (!result.failed) {
    await guest.leave();
    return 0;
  }
  const [run] = result.counterexample ?? [];
  if (run !== undefined) say(`kept ${await keep(run)}`);
  say(messageOf(result.errorInstance));
  return 1;
}

process.exitCode = await main();
