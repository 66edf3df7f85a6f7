import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import { openableNode } from './device-nodes.ts';

const skip = process.getuid?.() === 0 ? false : 'making device nodes needs root';
const uid = 64_321;

test(
  "openableNode() uses the host's node if any user may open it, else makes one for the VMM's user",
  { skip },
  async () => {
    const directory = await mkdtemp('/var/tmp/podvm-nodes-');
    try {
      const device = { path: join(directory, 'host-null'), major: 1, minor: 3 }; // in the place of /dev/net/tun
      await run('mknod', ['-m', '0666', device.path, 'c', '1', '3']);
      await chmod(device.path, 0o666); // regardless of the umask
      const signal = AbortSignal.timeout(60_000);
      assert.equal(await openableNode(device, directory, uid, signal), device.path);

      await chmod(device.path, 0o600);
      const own = await openableNode(device, directory, uid, signal);
      assert.notEqual(own, device.path);
      const found = await stat(own);
      assert.deepEqual(
        [found.isCharacterDevice(), found.rdev, found.uid, found.mode & 0o777],
        [true, 0x103, uid, 0o600],
      );
      assert.equal((await stat(device.path)).mode & 0o777, 0o600, "the host's own node is unchanged");
    } finally {
      await rm(directory, { recursive: true });
    }
  },
);

test('openableNode() names the module to load when the host has no such device', async () => {
  const device = { path: '/dev/net/none-of-ours', major: 10, minor: 200 };
  await assert.rejects(openableNode(device, '/nowhere', uid, AbortSignal.timeout(60_000)), {
    kind: 'failedPrecondition',
  });
});
