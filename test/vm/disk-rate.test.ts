import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { run } from '#host/run.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import { openNode, readAssets, templatesDirectory, whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(120_000);
const mebibyte = 1024 ** 2;
const bytes = 12 * mebibyte;
const diskBytesPerSecond = 4 * mebibyte;

await suite('the rate of disks', { skip: await whyNoVm() }, () => {
  /** How long a pod takes to read what no cache of its kernel or the host's has, in `ms`. */
  const readMs = async (rate: number | undefined) => {
    const assets = (await readAssets()) ?? assert.fail('no assets');
    const options = { assets, accelerator: 'tcg', templates: templatesDirectory } as const;
    const driver = createQemuDriver({ ...options, diskBytesPerSecond: rate });
    const node = await openNode({ around: (parts) => ({ ...parts, driver }) });
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, network: 'none' }, soon());
    const image = 'localhost/podvm/base:latest';
    const container = await sandbox.createContainer({ ...containerSpec, image, command: ['sleep', '1000'] }, soon());
    await container.start(soon());
    const inPod = async (script: string) => {
      const exec = await container.exec({ command: ['sh', '-c', script], tty: false, stdin: false }, soon());
      exec.stdout.resume();
      exec.stderr?.resume();
      assert.equal((await exec.exited).exitCode, 0, script);
    };
    await inPod(`head -c ${bytes} /dev/urandom > /file; sync`);
    const directory = join(node.directory, 'sandboxes', sandbox.id);
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    for (const entry of entries.filter((each) => each.isFile())) {
      const path = join(entry.parentPath, entry.name);
      await run('sync', [path]);
      await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
    }
    const beganMs = performance.now();
    await inPod('dd if=/file of=/dev/null bs=1M iflag=direct');
    const tookMs = performance.now() - beganMs;
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
    return tookMs;
  };

  test('that the node gives a pod holds it, and one without is not held', async (t) => {
    const [free, limited] = [await readMs(undefined), await readMs(diskBytesPerSecond)];
    t.diagnostic(`${Math.round(free)} ms without, ${Math.round(limited)} with`);
    const leastMs = (bytes / diskBytesPerSecond) * 1000;
    assert.ok(limited > 0.8 * leastMs, `${limited} ms`);
    assert.ok(limited > 2 * free, `${limited} ms, and ${free} without a rate`);
  });
});
