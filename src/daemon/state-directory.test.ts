import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStateDirectory } from './state-directory.ts';

test('openStateDirectory() sets the umask so that new files are closed to other users', async () => {
  const directory = await mkdtemp('/var/tmp/podvm-state-');
  await chmod(directory, 0o711);
  const root = join(directory, 'root');
  for (const umask of [0o000, 0o077]) {
    const before = process.umask(umask);
    try {
      await openStateDirectory(root);
      await writeFile(join(root, 'file'), '');
      assert.deepEqual([await modeOf(root), await modeOf(join(root, 'file'))], [0o755, 0o644]);
    } finally {
      process.umask(before);
      await rm(root, { recursive: true, force: true });
    }
  }
  await rm(directory, { recursive: true });
});

const modeOf = async (path: string) => (await stat(path)).mode & 0o777;
