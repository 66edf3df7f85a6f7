import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/run.ts';
import { containerSpec, sandboxSpec } from '#sandbox/examples.ts';
import type { ContainerMount, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openHouse, whyNoVm, type House } from './house.ts';

const image = 'localhost/podvm/base:latest';
const minute = () => AbortSignal.timeout(60_000);
const skip = await whyNoVm();

let attempts = 0;

/** Runs a script to its end and returns how it ended and all it said. */
async function runScript(
  sandbox: Sandbox,
  script: string,
  more: Partial<ContainerSpec> = {},
  onceStarted: () => Promise<void> = async () => {},
) {
  const spec = { ...containerSpec, image, name: `c${(attempts += 1)}`, command: ['sh', '-c', script], ...more };
  const container = await sandbox.createContainer(spec, minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  await onceStarted();
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  return { exit, output: Buffer.concat(chunks).toString(), container };
}

const ofHost = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/mnt',
  readOnly: false,
  ...more,
});

describe('a directory of the host in a real machine', { skip, timeout: 600_000 }, () => {
  let house: House;
  let sandbox: Sandbox;
  let directory: string;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-share-');
    house = await openHouse();
    sandbox = await house.sandboxes.run({ ...sandboxSpec, name: 'share', network: 'none' }, minute());
  });
  after(async () => {
    await house[Symbol.asyncDispose]();
    assert.deepEqual(await house.leftovers(), []);
    await rm(directory, { recursive: true });
  });

  test('is read and written from both sides', async () => {
    await writeFile(join(directory, 'from-host'), 'hello\n');
    const { output } = await runScript(sandbox, 'cat /mnt/from-host; echo there > /mnt/from-guest; mount | grep mnt', {
      mounts: [ofHost(directory)],
    });
    assert.match(output, /^hello\n/);
    assert.equal(await readFile(join(directory, 'from-guest'), 'utf8'), 'there\n');
  });

  test('shows what is mounted below it, and leaves that writable unless it is recursively read-only', async () => {
    const below = join(directory, 'below');
    await mkdir(below);
    await run('mount', ['-t', 'tmpfs', 'podvm-test', below]);
    try {
      await writeFile(join(below, 'file'), 'under\n');
      const script = 'cat /mnt/below/file; touch /mnt/new; touch /mnt/below/new && echo made; ls /mnt/below';
      const { output } = await runScript(sandbox, `(${script}) 2>&1`, {
        mounts: [ofHost(directory, { readOnly: true })],
      });
      assert.equal(output, 'under\ntouch: /mnt/new: Read-only file system\nmade\nfile\nnew\n');
      const { output: recursive } = await runScript(sandbox, `(${script}) 2>&1`, {
        mounts: [ofHost(directory, { readOnly: true, recursiveReadOnly: true })],
      });
      assert.match(recursive, /^under\n.*new: Read-only.*\n.*below\/new: Read-only.*\nfile\nnew\n$/);
    } finally {
      await run('umount', [below]);
    }
  });

  test('shows what the host mounts below it later, if that is to propagate', async () => {
    const host = join(directory, 'propagating');
    await mkdir(join(host, 'here'), { recursive: true });
    await run('mount', ['--bind', host, host]);
    await run('mount', ['--make-shared', host]);
    try {
      const script = 'until test -e /slave/here/file; do sleep 0.1; done; ls /slave/here /private/here';
      const source = { kind: 'host', path: host } as const;
      const running = runScript(
        sandbox,
        script,
        {
          mounts: [
            ofHost(host, { source: { ...source, propagation: 'hostToContainer' }, mountPath: '/slave' }),
            ofHost(host, { mountPath: '/private' }),
          ],
        },
        async () => {
          await run('mount', ['-t', 'tmpfs', 'podvm-test', join(host, 'here')]);
          await writeFile(join(host, 'here', 'file'), '');
        },
      );
      assert.equal((await running).output, '/private/here:\n\n/slave/here:\nfile\n');
    } finally {
      await run('umount', [join(host, 'here')]).catch(() => undefined); // not mounted, if that is what failed
      await run('umount', [host]);
    }
  });
});
