import assert from 'node:assert/strict';
import { readdir, realpath } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { suite, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import { openNode, readAssets, templatesDirectory, whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(120_000);
const mebibyte = 1024 ** 2;
const bytes = 12 * mebibyte;
const diskBytesPerSecond = 4 * mebibyte;
const scratch = { name: 'data', kind: 'scratch' } as const;
const checkout = join(import.meta.dirname, '../..');

await suite('the rate of disks', { skip: await whyNoVm() }, () => {
  /** Returns the time that a pod takes to read data that is in no cache of its kernel or of the host, in `ms`. */
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

  test('of the node limits a pod, and a pod without one is not limited', async (t) => {
    const [free, limited] = [await readMs(undefined), await readMs(diskBytesPerSecond)];
    t.diagnostic(`${Math.round(free)} ms without, ${Math.round(limited)} with`);
    const leastMs = (bytes / diskBytesPerSecond) * 1000;
    assert.ok(limited > 0.8 * leastMs, `${limited} ms`);
    assert.ok(limited > 2 * free, `${limited} ms, and ${free} without a rate`);
  });

  test('holds with version 2 of cgroups, as a machine has it: what is read, and also what is written back later', async (t) => {
    await using undo = new AsyncDisposableStack();
    const node = undo.use(await openNode());
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, network: 'none', volumes: [scratch] }, soon());
    // A root directory with the host's programs and the checkout, whose processes, devices and cgroups are the machine's.
    const ourNode = relative(checkout, await realpath(process.execPath));
    const script = `cd /root; ln -s usr/bin usr/lib usr/lib64 .; mkdir proc sys dev
      mount --bind /proc proc; mount --bind /dev dev; mount --bind /sys sys; mount --bind /sys/fs/cgroup sys/fs/cgroup
      exec chroot . /checkout/${ourNode} /checkout/test/vm/disk-rate-cgroups2.ts /disk ${bytes} 2>&1`;
    const ofHost = (path: string, mountPath: string) =>
      ({ source: { kind: 'host', path, propagation: 'private' }, mountPath, readOnly: true }) as const;
    const spec = {
      ...containerSpec,
      image: 'localhost/podvm/base:latest',
      command: ['sh', '-c', script],
      mounts: [
        ofHost('/usr', '/root/usr'),
        ofHost(checkout, '/root/checkout'),
        { source: { kind: 'volume', name: scratch.name }, mountPath: '/root/disk', readOnly: false },
      ],
      security: { ...security, privileged: true, seccomp: { kind: 'unconfined' } },
    } as const;
    const container = await sandbox.createContainer(spec, soon());
    let said = '';
    const follower = container.follow(async ({ bytes: some }) => void (said += Buffer.from(some).toString()));
    await container.start(soon());
    const { exitCode } = await container.exited;
    await follower.ended;
    t.diagnostic(said);
    assert.equal(exitCode, 0, said);
    await undo.disposeAsync();
    assert.deepEqual(await node.leftovers(), []);
    assert.match(said, /^limits: .*8:0 rbps=\d+ wbps=\d+ /m);
    for (const way of ['writes later', 'reads', 'writes']) {
      const found = new RegExp(`^${way}: (\\d+) (\\d+) (\\d+)$`, 'm').exec(said)?.slice(1).map(Number);
      const [freeMs, limitedMs, rate] = (found ?? assert.fail(said)) as [number, number, number]; // SAFE: three groups
      assert.ok(limitedMs > (0.8 * bytes * 1000) / rate, `${way}: ${limitedMs} ms at ${rate} B/s, ${freeMs} ms free`);
    }
  });
});
