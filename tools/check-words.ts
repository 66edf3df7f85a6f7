import { spawnSync } from 'node:child_process';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { findForbidden } from './words/find-forbidden.ts';

/**
 * `npm run check:words`: the spelling (cspell) and the choice of words (`words/forbidden.ts`) of the files that
 * `cspell.json` names.
 */
const repo = join(import.meta.dirname, '..');
const schema = v.object({ files: v.array(v.string()), ignorePaths: v.array(v.string()) });
const { files, ignorePaths } = v.parse(schema, JSON.parse(await readFile(join(repo, 'cspell.json'), 'utf8')));

const show = ['--no-progress', '--no-summary', '--show-suggestions'];
/** Findings of a file are cached by its content, the settings and the terms. */
const cache = ['--cache', '--cache-strategy', 'content', '--cache-location', 'node_modules/.cache/cspell'];
const spelling = spawnSync('cspell', [...show, ...cache], {
  cwd: repo,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${join(repo, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}` },
});
if (spelling.status !== 0) {
  console.error('fix: Correct the words, or add a term of the field to tools/words/terms.txt.');
  process.exitCode = 1;
}

for await (const path of glob(files, { cwd: repo, exclude: ['node_modules/**', ...ignorePaths] })) {
  for (const { line, words, instead } of findForbidden(path, await readFile(join(repo, path), 'utf8'))) {
    console.error(`${path}:${line} - "${words}": ${instead}`);
    process.exitCode = 1;
  }
}
