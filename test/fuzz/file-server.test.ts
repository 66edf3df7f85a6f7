import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { readCorpus } from './corpus.ts';
import { askAll, steps } from './requests.ts';
import { openServerBench, whyNoServer } from './scripted-guest.ts';

const mayNotSkip = process.env['PODVM_REQUIRE_VM'] === '1';
const skip = mayNotSkip ? false : (whyNoServer ?? false);

test(
  'the file server lives on after what has been found before, and after 200 runs that have not',
  { skip },
  async () => {
    await using bench = await openServerBench();
    const outside = join(bench.directory, 'outside');
    await writeFile(outside, 'secret');
    const guest = await bench.start();
    const corpus = await readCorpus();
    assert.ok(corpus.size > 0);
    for (const [name, run] of corpus) await assert.doesNotReject(askAll(guest, run), name);
    await fc.assert(
      fc.asyncProperty(steps, (run) => askAll(guest, run)),
      { numRuns: 200, timeout: 20_000 },
    );
    await guest.leave();
    assert.equal(await readFile(outside, 'utf8'), 'secret');
    const beside = (await readdir(bench.directory)).filter((name) => !name.startsWith('socket'));
    assert.deepEqual(beside.sort(), ['files', 'outside', 'served']);
  },
);
