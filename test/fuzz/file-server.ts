import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { askAll, type Step, steps, stepsSchema } from './requests.ts';
import { openServerBench, whyNoServer } from './scripted-guest.ts';
import { type Bench, defineTarget } from './target.ts';

/** The file server under address and undefined-behaviour checks, with requests of a scripted guest. */
export const fileServer = defineTarget<readonly Step[]>({
  name: 'file-server',
  whyNot: whyNoServer,
  runs: steps,
  schema: stepsSchema,
  runTimeoutMs: 20_000,
  open,
});

/** Number of runs after which it has many files open, and another replaces it. */
const runsOfServer = 500;

async function open(): Promise<Bench<readonly Step[]>> {
  await using undo = new AsyncDisposableStack();
  const bench = undo.use(await openServerBench());
  const outside = join(bench.directory, 'outside');
  await writeFile(outside, 'secret');
  let guest = await bench.start();
  let given = 0;
  const owned = undo.move();
  return {
    async give(run) {
      given += 1;
      if (given % runsOfServer === 0) {
        await guest.leave(); // with nothing to complain of
        guest = await bench.start();
      }
      try {
        await askAll(guest, run);
      } catch (error) {
        guest = await bench.start();
        throw error;
      }
    },
    async finish() {
      await guest.leave();
      assert.equal(await readFile(outside, 'utf8'), 'secret');
      const beside = (await readdir(bench.directory)).filter((name) => !name.startsWith('socket'));
      assert.deepEqual(beside.sort(), ['files', 'outside', 'served']);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
