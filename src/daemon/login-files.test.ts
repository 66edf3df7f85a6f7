import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { loginFiles, mayHaveLogins } from './login-files.ts';

/** A user without files. */
async function openUser() {
  const home = await mkdtempDisposable(join(tmpdir(), 'podvm-home-'));
  const environment = { HOME: home.path, XDG_RUNTIME_DIR: join(home.path, 'run') };
  return { user: { environment, uid: 0 }, [Symbol.asyncDispose]: () => home[Symbol.asyncDispose]() };
}

test('a user without any of the files has no logins', async () => {
  await using place = await openUser();
  assert.equal(await mayHaveLogins(place.user), false);
});

test('a user with one of the files may have logins, also if it cannot be looked at', async () => {
  for (const at of [0, 1, 2]) {
    for (const make of [(path: string) => writeFile(path, '{}'), (path: string) => symlink(path, path)]) {
      await using place = await openUser();
      const path = loginFiles(place.user)[at] ?? '';
      await mkdir(dirname(path), { recursive: true });
      await make(path);
      assert.equal(await mayHaveLogins(place.user), true, path);
    }
  }
});

test('a user who names a file is told if it is missing', async () => {
  await using place = await openUser();
  assert.equal(await mayHaveLogins({ ...place.user, authFile: '/nonexistent' }), true);
});
