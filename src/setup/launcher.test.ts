import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtempDisposable, readdir, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const repo = join(import.meta.dirname, '../..');

test('./podvm does not let npm empty what a linked node_modules leads to', async () => {
  await using checkout = await mkdtempDisposable(join(tmpdir(), 'podvm-checkout-'));
  for (const file of ['podvm', 'src/setup/host-packages.txt']) await cp(join(repo, file), join(checkout.path, file));
  const elsewhere = join(checkout.path, 'elsewhere');
  await mkdir(elsewhere);
  await writeFile(join(elsewhere, 'kept'), '');
  await symlink(elsewhere, join(checkout.path, 'node_modules'));

  const failure = { code: 1, stderr: /node_modules is a link[^]*fix: remove the link/ };
  await assert.rejects(promisify(execFile)(join(checkout.path, 'podvm'), ['version']), failure);
  assert.deepEqual(await readdir(elsewhere), ['kept']);
});
