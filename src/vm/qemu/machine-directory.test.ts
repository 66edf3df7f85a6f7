import assert from 'node:assert/strict';
import { mkdtempDisposable, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MachineDirectory } from './machine-directory.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

test(
  "prepare() lets the VMM's user list the directory, which bubblewrap opens, and search the others",
  { skip },
  async () => {
    await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-machine-'));
    const directory = new MachineDirectory(work.path);
    await directory.prepare(64_999);
    const found = await Promise.all(
      [directory.path, directory.sockets, directory.devices].map(async (path) => {
        const { mode, uid, gid } = await stat(path);
        return [(mode & 0o777).toString(8), uid, gid];
      }),
    );
    assert.deepEqual(found, [
      ['750', 0, 64_999],
      ['700', 64_999, 64_999],
      ['710', 0, 64_999],
    ]);
  },
);
