import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

const minute = () => AbortSignal.timeout(120_000);
const mebibyte = 1024 * 1024;
const skip = await whyNoVm();
const scratch = { name: 'data', kind: 'scratch' } as const;

/** `shared`: a directory of the host that it mounts. */
async function idle(sandbox: Sandbox, shared?: string): Promise<Container> {
  const source = { kind: 'host', path: shared ?? '', propagation: 'private' } as const;
  const mounts = shared === undefined ? [] : [{ source, mountPath: '/shared', readOnly: false }];
  const container = await sandbox.createContainer(
    {
      ...containerSpec,
      image: 'localhost/podvm/base:latest',
      command: ['sleep', '100000'],
      mounts: [{ source: { kind: 'volume', name: 'data' }, mountPath: '/data', readOnly: false }, ...mounts],
    },
    minute(),
  );
  await container.start(minute());
  return container;
}

async function said(container: Container, script: string): Promise<string> {
  const exec = await container.exec(
    { command: ['sh', '-c', `exec 2>&1; ${script}`], tty: false, stdin: false },
    minute(),
  );
  exec.stderr?.resume();
  const chunks: Buffer[] = [];
  for await (const bytes of exec.stdout) chunks.push(bytes as Buffer);
  await exec.exited;
  return Buffer.concat(chunks).toString();
}

const fill = 'dd if=/dev/zero of=/data/fill bs=1M conv=fsync';

/** Asserts that a container that fills a disk gets the error, and others are not affected. */
describe('a full disk', { skip, timeout: 600_000 }, () => {
  let directory: string;
  let mountPoint: string;
  let node: Node;
  let full: Sandbox;
  let neighbour: Sandbox;
  const troubles: string[] = [];

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-full-');
    mountPoint = join(directory, 'mnt');
    await run('chmod', ['0711', directory]);
    await mkdir(mountPoint);
    const image = join(directory, 'host.img');
    await writeFile(image, '');
    await truncate(image, 400 * mebibyte);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-m', '0', image]);
    await run('mount', ['-o', 'loop', image, mountPoint]);
    const root = join(mountPoint, 'node');
    await mkdir(root);
    node = await openNode({ earlier: root });
    const spec = (name: string, bytes: number) =>
      ({
        ...sandboxSpec,
        name,
        network: 'none',
        volumes: [scratch],
        resources: { ephemeralStorageBytes: bytes },
      }) as const;
    full = await node.sandboxes.run(spec('full', 600 * mebibyte), minute());
    neighbour = await node.sandboxes.run(spec('neighbour', 64 * mebibyte), minute());
    full.onDiskTrouble((trouble) => troubles.push(trouble));
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await run('umount', [mountPoint], { okCodes: [0, 32] });
    await rm(directory, { recursive: true });
  });

  test('in the machine: the container gets ENOSPC, and continues when there is space', async () => {
    const shared = join(mountPoint, 'shared');
    await mkdir(shared);
    const container = await idle(neighbour, shared);
    assert.match(await said(container, fill), /No space left on device/);
    assert.match(await said(container, 'rm /data/fill && echo x >/data/file && sync && cat /data/file'), /^x$/m);
  });

  test('on the host: container and pod get the error, and it and its neighbours continue', async () => {
    const container = await idle(full);
    const { bavail, bsize } = await statfs(mountPoint);
    assert.ok(bavail * bsize < 400 * mebibyte);
    assert.match(await said(container, fill), /No space left on device|I\/O error/);
    assert.match(troubles[0] ?? '', /Disk scratch could not be written: the host's file system is full/);
    assert.ok(troubles.length < 200, `${troubles.length} times`);
    assert.equal(full.status.state, 'ready');

    const other = neighbour.container('main') ?? assert.fail();
    assert.equal(await said(other, 'cat /data/file; ls /data'), 'x\nfile\n');
    assert.equal(await said(container, 'echo alive'), 'alive\n');
    const write = 'dd if=/dev/zero of=/shared/file bs=1M count=1 conv=fsync && echo written';
    assert.match(await said(other, write), /No space left on device/);
    await full.remove();
    assert.match(await said(other, write), /^written$/m);
    assert.equal(await said(other, 'echo more >/data/more && sync && cat /data/more'), 'more\n');
  });
});
