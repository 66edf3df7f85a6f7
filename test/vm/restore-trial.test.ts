import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { clockFault, tryRestore } from '#daemon/doctor/restore-trial.ts';
import { tracesOf } from '../leaks.ts';
import { readAssets, whyNoVm } from './node.ts';

const skip = await whyNoVm();

test(
  'tryRestore(), which `podvm doctor --accelerator kvm` runs, restores a guest whose clock continues',
  { skip },
  async () => {
    const assets = await readAssets();
    assert.ok(assets);
    const root = await mkdtemp('/var/tmp/podvm-restore-');
    await chmod(root, 0o711); // VMMs reach their files in it
    const directory = join(root, 'probe');
    try {
      const outcome = await tryRestore(
        { assets, accelerator: 'tcg', directory, uid: 64_998 },
        AbortSignal.timeout(240_000),
      );
      assert.equal(clockFault(outcome), undefined, JSON.stringify(outcome));
      assert.ok(outcome.restoreMs > 0);
      assert.deepEqual(await readdir(directory), []);
      assert.deepEqual(await tracesOf({ directory, ids: [] }), []);
    } finally {
      await rm(root, { recursive: true });
    }
  },
);
