import assert from 'node:assert/strict';
import { it } from 'node:test';
import { withoutUnusedBanner } from './program-tree.ts';

it('a file of a release has the banner only if it names a variable of that, and its lines stay where they are', () => {
  const banner = 'import { createRequire } from "node:module"; const require = 1;';
  for (const body of ['\nrequire("fs");\n', '\nload(__dirname);\n', '\ntypeof require;\n', '\n__filename'])
    assert.equal(withoutUnusedBanner(`${banner}${body}`), `${banner}${body}`);
  assert.equal(withoutUnusedBanner(`${banner}\nimport { createRequire, required } from "x";\n`).split('\n').length, 3);
  assert.equal(withoutUnusedBanner(`${banner}\nexport {};\n`), '\nexport {};\n');
});
