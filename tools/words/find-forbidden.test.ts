import assert from 'node:assert/strict';
import { it } from 'node:test';
import { findForbidden } from './find-forbidden.ts';

const found = (path: string, text: string) => findForbidden(path, text).map(({ line, words }) => [line, words]);

it('findForbidden() finds words and phrases in the prose of a page, not in its code', () => {
  const text = 'Whoever reads.\nThe user `nobody`.\n```\nanew\n```\nIt works all\nthe same.\n';
  assert.deepEqual(found('a.md', text), [
    [1, 'Whoever'],
    [6, 'all the same'],
  ]);
});

it('findForbidden() looks at the comments of a program alone', () => {
  const text = "const user = 'nobody';\n/** Whoever asks:\n * it is made anew. */\nrun(); // by somebody\n";
  assert.deepEqual(found('a.ts', text), [
    [2, 'Whoever'],
    [3, 'anew'],
    [4, 'somebody'],
  ]);
  assert.deepEqual(found('b.ts', '// so it works all\n// the same\n').length, 1);
});

it('findForbidden() passes over parts of words', () => {
  assert.deepEqual(found('a.md', 'Henceforth, the smallest.\n'), []);
});
