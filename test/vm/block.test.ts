import assert from 'node:assert/strict';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { kindOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { ContainerMount, ContainerSpec, Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';
import { outputToEnd } from './output-to-end.ts';

const image = 'localhost/podvm/base:latest';
const minute = () => AbortSignal.timeout(60_000);
const kind = (expected: string) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};
const mebibyte = 1024 * 1024;
const skip = await whyNoVm();

let names = 0;
const specOf = (script: string, more: Partial<ContainerSpec> = {}): ContainerSpec => ({
  ...containerSpec,
  image,
  name: `c${(names += 1)}`,
  command: ['sh', '-c', script],
  ...more,
});

async function say(sandbox: Sandbox, script: string, more: Partial<ContainerSpec> = {}): Promise<string> {
  const container = await sandbox.createContainer(specOf(script, more), minute());
  return await outputToEnd(container, minute);
}

const mountOf = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/data',
  readOnly: false,
  ...more,
});

/** Needs loop devices on the host, which also give tests their block devices. */
describe('block volumes', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let directory: string;
  let made = 0;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-block-');
    node = await openNode();
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    const { stdout } = await run('losetup', ['--noheadings', '--output', 'BACK-FILE']);
    assert.equal(stdout.includes(directory), false, `loop devices are left: ${stdout}`);
    await rm(directory, { recursive: true });
  });

  const emptyImage = async (sizeBytes = 64 * mebibyte): Promise<string> => {
    const path = join(directory, `disk-${(made += 1)}.img`);
    await writeFile(path, '');
    await truncate(path, sizeBytes);
    return path;
  };
  const ext4Image = async (sizeBytes?: number): Promise<string> => {
    const path = await emptyImage(sizeBytes);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', path]);
    return path;
  };
  /** Runs a test with a sandbox that may have the paths as file systems. */
  const withSandbox = async (
    paths: readonly string[],
    use: (sandbox: Sandbox) => Promise<void>,
    more: Partial<SandboxSpec> = {},
  ): Promise<void> => {
    const annotations = { [podAnnotations.blockVolumes.name]: paths.join(',') };
    const name = `block-${(names += 1)}`;
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name, network: 'none', annotations, ...more }, minute());
    try {
      await use(sandbox);
    } finally {
      await sandbox.remove();
    }
  };
  afterEach(async () => assert.deepEqual(await node.leftovers(), []));

  test('an image file is a volume that outlives its pods, sound and on one machine at a time', async () => {
    const path = await ext4Image();
    const mounts = [mountOf(path)];
    await withSandbox([path], async (first) => {
      assert.match(
        await say(first, 'echo kept >/data/file && sync && grep " /data " /proc/mounts', { mounts }),
        / ext4 rw/,
      );
      const open = await first.createContainer(specOf('echo more >>/data/file; sleep 1000', { mounts }), minute());
      await open.start(minute());
      assert.deepEqual(open.status.mounts, [{ mountPath: '/data', mode: 'block' }]);
      await withSandbox([path], async (second) => {
        await assert.rejects(second.createContainer(specOf('true', { mounts }), minute()), kind('busy'));
        await assert.rejects(
          second.createContainer(specOf('true', { mounts: [mountOf(path, { readOnly: true })] }), minute()),
          kind('busy'),
        );
      });
    });
    await run('e2fsck', ['-n', '-f', path]); // clean: it was unmounted, though its container never ended by itself
    await withSandbox([path], async (third) => {
      assert.equal(await say(third, 'cat /data/file', { mounts }), 'kept\nmore\n');
    });
  });

  test('a volume is released with the last container that mounts it, and can be used again at once', async () => {
    const path = await ext4Image();
    await withSandbox([path], async (one) => {
      await say(one, 'echo one >/data/file', { mounts: [mountOf(path)] });
      await withSandbox([path], async (other) => {
        assert.equal(await say(other, 'cat /data/file', { mounts: [mountOf(path)] }), 'one\n');
      });
      const readOnly = { mounts: [mountOf(path, { readOnly: true })] };
      const said = await say(one, 'exec 2>&1; cat /data/file; echo x >/data/file', readOnly);
      assert.match(said, /^one\n.*Read-only file system/);
    });
  });

  test('a source that is missing, not a disk or not ext4 is refused with a message, and not attached', async () => {
    const [empty, path] = [await emptyImage(), await ext4Image()];
    await withSandbox([empty, `${directory}/none`, directory, path], async (sandbox) => {
      for (const [bad, message] of [
        [empty, /holds no ext4/],
        [`${directory}/none`, /no such file or device/],
        [directory, /neither a block device nor an image/],
      ] as const) {
        const mounts = [mountOf(path, { mountPath: '/good' }), mountOf(bad)];
        await assert.rejects(sandbox.createContainer(specOf('true', { mounts }), minute()), { message });
      }
      await withSandbox([path], async (other) => void (await say(other, 'true', { mounts: [mountOf(path)] })));
    });
  });

  test("fsGroup owns the volume's files, and new ones", async () => {
    const path = await ext4Image();
    const mounts = [mountOf(path)];
    await withSandbox([path], async (sandbox) => {
      await say(sandbox, 'mkdir /data/d; echo x >/data/d/f; chmod 600 /data/d/f; ln -s /etc/passwd /data/link', {
        mounts,
      });
    });
    const user = { mounts, security: { ...security, runAsUser: 1000, runAsGroup: 1000, supplementalGroups: [] } };
    await withSandbox(
      [path],
      async (sandbox) => {
        const script = 'cat /data/d/f && touch /data/d/new && stat -c "%g %a %n" /data /data/d/f /data/d/new';
        assert.equal(
          await say(sandbox, script, user),
          'x\n4321 2775 /data\n4321 660 /data/d/f\n4321 644 /data/d/new\n',
        );
      },
      { fsGroup: 4321 },
    );
  });

  test('a device is passed unchanged, with the requested access only', async () => {
    const path = await emptyImage();
    const { stdout } = await run('losetup', ['--find', '--show', path]);
    const device = stdout.trim();
    try {
      const write = 'printf hello | dd of=/dev/data conv=notrunc,fsync 2>/dev/null && head -c 5 /dev/data';
      const devices = [{ hostPath: device, devicePath: '/dev/data', readOnly: false }];
      await withSandbox([], async (sandbox) => {
        assert.equal(await say(sandbox, write, { devices }), 'hello');
        const user = { devices, security: { ...security, runAsUser: 1000, runAsGroup: 1000 } };
        assert.equal(await say(sandbox, 'head -c 5 /dev/data', user), 'hello');
        const other = 'mknod /tmp/other b 8 0 && head -c 1 /tmp/other';
        assert.match(
          await say(sandbox, other, { devices, security: { ...security, addCapabilities: ['MKNOD'] } }),
          /not permitted/,
        );
        const readOnly = { devices: [{ hostPath: device, devicePath: '/dev/data', readOnly: true }] };
        assert.match(
          await say(sandbox, 'head -c 5 /dev/data; printf x >/dev/data', readOnly),
          /^hello.*(denied|not permitted)/s,
        );
        const held = await sandbox.createContainer(specOf('sleep 1000', { devices }), minute());
        await held.start(minute());
        await assert.rejects(run('mke2fs', ['-q', '-F', device])); // the host cannot have it either
      });
      assert.equal((await run('head', ['-c', '5', path])).stdout, 'hello');
    } finally {
      await run('losetup', ['--detach', device]);
    }
  });

  test('a volume grows while it is in use', async () => {
    const path = await ext4Image();
    await withSandbox([path], async (sandbox) => {
      const spec = specOf('while :; do stat -f -c "%b %S" /data; sleep 0.2; done', { mounts: [mountOf(path)] });
      const container = await sandbox.createContainer(spec, minute());
      const sizes: number[] = [];
      container.follow(async ({ bytes }) => {
        for (const line of bytes.toString().trim().split('\n')) {
          const [blocks = 0, blockBytes = 0] = line.split(' ').map(Number);
          sizes.push(blocks * blockBytes);
        }
      });
      await container.start(minute());
      await truncate(path, 256 * mebibyte);
      const deadline = minute();
      while ((sizes.at(-1) ?? 0) < 200 * mebibyte) {
        deadline.throwIfAborted();
        await delay(200, undefined, { signal: deadline }); // between two looks
      }
    });
    await run('e2fsck', ['-n', '-f', path]);
  });

  test('a machine that dies leaves the volume to the next one, with all synced data', async () => {
    const path = await ext4Image();
    const mounts = [mountOf(path)];
    await withSandbox([path], async (sandbox) => {
      const script = 'echo synced >/data/file && sync && echo ready && sleep 1000';
      const container = await sandbox.createContainer(specOf(script, { mounts }), minute());
      const ready = Promise.withResolvers<void>();
      container.follow(async () => ready.resolve());
      await container.start(minute());
      await ready.promise;
      process.kill(sandbox.status.vmmPid ?? assert.fail(), 'SIGKILL');
      assert.equal((await sandbox.ended).state, 'failed');
      await withSandbox([path], async (next) => {
        assert.equal(await say(next, 'cat /data/file', { mounts }), 'synced\n');
      });
    });
  });
});
