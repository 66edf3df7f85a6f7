import assert from 'node:assert/strict';
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import { makeWorkDirectory } from './work-directory.ts';

const whyNot = process.getuid?.() === 0 ? false : 'needs root';

test(
  'a work directory unmounts what is mounted in it before it is removed, and leaves the mounted files alone',
  { skip: whyNot },
  async () => {
    await using precious = await makeWorkDirectory();
    await writeFile(join(precious.temporary, 'keep'), 'me');
    const work = await makeWorkDirectory();
    const outer = join(work.temporary, 'with a space');
    const inner = join(outer, 'inner');
    await mkdir(outer);
    await run('mount', ['--bind', precious.path, outer]);
    await mkdir(inner);
    await run('mount', ['--bind', precious.temporary, inner]);
    assert.deepEqual(await readdir(inner), ['keep']);
    await work[Symbol.asyncDispose]();
    await assert.rejects(access(work.path), { code: 'ENOENT' });
    assert.deepEqual(await readdir(precious.temporary), ['keep']);
  },
);
