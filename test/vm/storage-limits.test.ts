import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';
import { outputToEnd } from './output-to-end.ts';

const skip = await whyNoVm();
const mebibyte = 1024 * 1024;
const minute = () => AbortSignal.timeout(60_000);

describe('limits of storage in a real machine', { skip, timeout: 300_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;
  const names = ['small', 'free'] as const;

  before(async () => {
    node = await openNode();
    const volumes = [
      { name: 'small', kind: 'scratch', sizeLimitBytes: 4 * mebibyte },
      { name: 'free', kind: 'scratch' },
    ] as const;
    sandbox = await node.sandboxes.run({ ...sandboxSpec, network: 'none', volumes }, minute());
  });
  after(async () => {
    await sandbox.remove();
    assert.deepEqual(await node.leftovers(), []);
    await node[Symbol.asyncDispose]();
  });

  let attempt = 0;
  const run = async (script: string, more: Partial<ContainerSpec> = {}) => {
    const spec: ContainerSpec = {
      ...containerSpec,
      image: 'localhost/podvm/base:latest',
      attempt: (attempt += 1),
      command: ['sh', '-c', script],
      mounts: names.map((name) => ({
        source: { kind: 'volume', name },
        mountPath: `/${name}`,
        readOnly: false,
      })),
      ...more,
    };
    const container = await sandbox.createContainer(spec, minute());
    const chunks: Buffer[] = [];
    const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
    await container.start(minute());
    await container.exited;
    await follower.ended;
    const stats = await sandbox.stats(minute());
    await container.remove(minute());
    return { output: Buffer.concat(chunks).toString(), stats };
  };

  it('an emptyDir holds its sizeLimit and, except for its directories, no more, while others have space', async () => {
    const { output, stats } = await run(
      'dd if=/dev/zero of=/small/file bs=64k count=128; du -k /small/file; df -k /small | tail -1; ' +
        'dd if=/dev/zero of=/free/file bs=1M count=8 && echo fine',
    );
    assert.match(output, /writing '\/small\/file': No space left on device/);
    const kibibytes = Number(/^(\d+)\t\/small\/file$/m.exec(output)?.[1]);
    assert.ok(kibibytes >= 4096 && kibibytes <= 4096 + 128, `${kibibytes} KiB`);
    assert.match(output, /fine\n$/);
    const bytesOf = (name: string) => stats.volumes.find((volume) => volume.name === name)?.bytes ?? -1;
    assert.ok(bytesOf('small') >= kibibytes * 1024, `${bytesOf('small')} bytes`);
    assert.ok(bytesOf('small') <= (4096 + 128) * 1024, `${bytesOf('small')} bytes`);
    assert.ok(bytesOf('free') >= 8 * mebibyte, `${bytesOf('free')} bytes`);
  });

  it('frees what is removed', async () => {
    const { output } = await run('rm /small/file && dd if=/dev/zero of=/small/again bs=1M count=3 && echo fine');
    assert.match(output, /fine\n$/);
  });

  it('a writable layer is bounded by its limit, including files copied up into it', async () => {
    const { output, stats } = await run(
      'dd if=/dev/zero of=/file bs=1M count=20; touch /bin/busybox; rm /file; dd if=/dev/zero of=/file bs=1M count=8 && echo fine',
      { resources: { ephemeralStorageBytes: 16 * mebibyte } },
    );
    assert.match(output, /writing '\/file': Disk quota exceeded/);
    assert.match(output, /touch: \/bin\/busybox: Disk quota exceeded/);
    assert.match(output, /fine\n$/);
    const [container] = stats.containers;
    assert.ok((container?.layer?.bytes ?? 0) >= 8 * mebibyte, `${container?.layer?.bytes} bytes`);
    assert.ok((container?.layer?.bytes ?? 0) <= 16 * mebibyte, `${container?.layer?.bytes} bytes`);
  });

  it('the limit also binds a container that is privileged in its machine', async () => {
    const { output } = await run('rm -f /small/*; dd if=/dev/zero of=/small/file bs=1M count=6; ls /small', {
      security: { ...security, privileged: true },
    });
    assert.match(output, /writing '\/small\/file': No space left on device/);
  });

  it('and so does the limit of its layer', async () => {
    const { output } = await run('dd if=/dev/zero of=/file bs=1M count=20', {
      resources: { ephemeralStorageBytes: 16 * mebibyte },
      security: { ...security, privileged: true },
    });
    assert.match(output, /writing '\/file': Disk quota exceeded/);
  });
});

describe('limits of storage in a pod that has one of all its storage', { skip, timeout: 300_000 }, () => {
  it('an emptyDir is a directory of the one disk, and shows its quota', async () => {
    await using node = await openNode();
    const volumes = [{ name: 'small', kind: 'scratch', sizeLimitBytes: 4 * mebibyte }] as const;
    const resources = { ephemeralStorageBytes: 64 * mebibyte };
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, network: 'none', volumes, resources }, minute());
    const container = await sandbox.createContainer(
      {
        ...containerSpec,
        image: 'localhost/podvm/base:latest',
        command: ['sh', '-c', 'dd if=/dev/zero of=/small/file bs=1M count=6; dd if=/dev/zero of=/file bs=1M count=80'],
        mounts: [{ source: { kind: 'volume', name: 'small' }, mountPath: '/small', readOnly: false }],
      },
      minute(),
    );
    assert.match(
      await outputToEnd(container, minute),
      /small\/file': Disk quota exceeded[^]*'\/file': No space left on/,
    );
    await sandbox.remove();
    assert.deepEqual(await node.leftovers(), []);
  });
});
