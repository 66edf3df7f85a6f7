import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { poll, retry } from '#host/wait.ts';
import { adoptBlockClaim, claimBlock, findBlockSource, type BlockClaim, type BlockClaimRecord } from './block-claim.ts';
import { describeClaims } from './testing/storage.conformance.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-claim-'));
after(() => rm(directory, { recursive: true }));
const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: string) => (error: unknown) => kindOf(error) === expected;
const mebibyte = 1024 * 1024;

const hasLoops = await run('losetup', ['--find']).then(
  () => true,
  () => false,
);
const skip = process.getuid?.() !== 0 ? 'needs root' : hasLoops ? false : 'needs loop devices';

const loopsOf = async (path: string): Promise<string[]> => {
  const { stdout } = await run('losetup', ['--noheadings', '--output', 'NAME', '--associated', path]);
  return stdout.split('\n').filter(Boolean);
};

/** A look of another program at all loop devices may keep one for a moment. */
const hasNoLoop = (path: string) =>
  poll(async () => (await loopsOf(path)).length === 0 || undefined, { everyMs: 20, signal: soon() });

test('findBlockSource() identifies devices and images, and refuses other files', async () => {
  const image = join(directory, 'found.img');
  await writeFile(image, 'x'.repeat(512));
  await symlink(image, join(directory, 'link'));
  const { key } = await findBlockSource(image);
  assert.equal((await findBlockSource(join(directory, 'link'))).key, key);
  await assert.rejects(findBlockSource(join(directory, 'none')), kind('notFound'));
  for (const path of [directory, '/dev/null']) await assert.rejects(findBlockSource(path), kind('unsupported'));
});

describeClaims(
  'real',
  async () => {
    const vmm = spawn('sleep', ['1000'], { stdio: 'ignore' });
    return {
      claimBlock,
      vmmPid: vmm.pid ?? 0,
      async [Symbol.asyncDispose]() {
        vmm.kill('SIGKILL');
        await once(vmm, 'exit');
      },
    };
  },
  skip,
);

describe('claimBlock()', { skip }, () => {
  let path: string;
  let vmm: ChildProcess;
  let made = 0;
  beforeEach(async () => {
    path = join(directory, `disk-${(made += 1)}.img`);
    await writeFile(path, '');
    await truncate(path, mebibyte);
    vmm = spawn('sleep', ['1000'], { stdio: 'ignore' });
  });
  afterEach(async () => {
    vmm.kill('SIGKILL');
    if (vmm.exitCode === null && vmm.signalCode === null) await once(vmm, 'exit');
    assert.ok(await hasNoLoop(path), 'a loop device is left');
  });
  const claim = (more: { path?: string; readOnly?: boolean } = {}): Promise<BlockClaim> =>
    claimBlock({ path, readOnly: false, vmmPid: vmm.pid ?? 0, ...more }, soon());

  test('gives an image to one machine at a time', async () => {
    {
      await using first = await claim();
      assert.equal(first.device.major, 7);
      await assert.rejects(claim(), kind('busy'));
      await assert.rejects(claim({ readOnly: true }), kind('busy'));
      assert.equal((await loopsOf(path)).length, 1);
    }
    assert.ok(await hasNoLoop(path));
    await using _next = await claim();
  });

  test('gives a device to one machine at a time, and not while the host has it mounted', async () => {
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', path]);
    const { stdout } = await run('losetup', ['--find', '--show', path]);
    const device = stdout.trim();
    const mountPoint = await mkdtemp(join(directory, 'mnt-'));
    try {
      await assert.rejects(claim(), /the host has it as \/dev\/loop/);
      await run('mount', [device, mountPoint]);
      await assert.rejects(claim({ path: device }), kind('busy'));
      await run('umount', [mountPoint]);
      {
        await using _first = await claim({ path: device });
        await assert.rejects(claim({ path: device }), kind('busy'));
        await assert.rejects(run('mount', [device, mountPoint]), /ended with code 32/);
      }
      await using _next = await claim({ path: device, readOnly: true });
    } finally {
      await run('umount', [mountPoint], { okCodes: [0, 32] });
      await run('losetup', ['--detach', device]);
    }
  });

  test('refuses write access to read-only sources, and images of invalid size', async () => {
    const { stdout } = await run('losetup', ['--find', '--show', '--read-only', path]);
    const device = stdout.trim();
    try {
      await assert.rejects(claim({ path: device }), /read-only/);
    } finally {
      await run('losetup', ['--detach', device]);
    }
    for (const size of [0, 1000]) {
      await truncate(path, size);
      await assert.rejects(claim(), kind('failedPrecondition'));
    }
  });

  test('measures an image that has grown', async () => {
    await using one = await claim();
    assert.equal(await one.measure(soon()), mebibyte);
    await truncate(path, 3 * mebibyte);
    assert.equal(await one.measure(soon()), 3 * mebibyte);
  });

  /** Claims in another process, which is killed then. */
  const claimAndDie = async (): Promise<BlockClaimRecord> => {
    const script = `
      import { claimBlock } from ${JSON.stringify(join(import.meta.dirname, 'block-claim.ts'))};
      const request = { path: ${JSON.stringify(path)}, readOnly: false, vmmPid: ${vmm.pid} };
      const { record } = await claimBlock(request, AbortSignal.timeout(20000));
      process.stdout.write(JSON.stringify(record));
      setInterval(() => {}, 1000);`;
    const other = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      cwd: join(import.meta.dirname, '../..'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [text] = (await once(other.stdout, 'data', { signal: soon() })) as [Buffer];
    other.kill('SIGKILL');
    await once(other, 'exit');
    return JSON.parse(text.toString()) as BlockClaimRecord; // SAFE: the script wrote it
  };

  test('lasts as long as the VMM when the process that claimed is killed', async () => {
    await claimAndDie();
    await assert.rejects(claim(), kind('busy'));
    vmm.kill('SIGKILL');
    await once(vmm, 'exit');
    // The keeper checks five times a second, and a claim waits for it, but not for one that gets no processor.
    await using _next = await retry(claim, (error) => kindOf(error) === 'busy', { everyMs: 20, forMs: 60_000 });
  });

  test('is taken over from a process that was killed, follows growth, and is given up', async () => {
    const record = await claimAndDie();
    await assert.rejects(
      adoptBlockClaim({ ...record, image: { ...record.image, identity: '1:1' } as never }),
      /Cannot take over .*: it has been replaced/,
    );
    await assert.rejects(claim(), kind('busy'), 'the keeper still holds it');
    {
      await using adopted = await adoptBlockClaim(record);
      assert.deepEqual(adopted.device, record.device);
      await truncate(path, 3 * mebibyte);
      assert.equal(await adopted.measure(soon()), 3 * mebibyte);
      await assert.rejects(claim(), kind('busy'));
    }
    await assert.rejects(adoptBlockClaim(record), /the process that held it has ended/);
    await using _next = await claim();
  });
});
