import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { makingPrefix } from '#setup/parts/parts.ts';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode, repo, type Typed } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();

/** Directory for temporary files of the programs that set-up runs, instead of /tmp. */
const temporary = await mkdtemp(join(tmpdir(), 'podvm-set-up-'));
process.env['TMPDIR'] = temporary;
after(() => rm(temporary, { recursive: true }));

/** A state directory that lacks these parts, so that set-up makes them. */
async function openWithout(...parts: readonly string[]): Promise<CliNode> {
  const cli = await openCliNode({ isSetUp: true });
  await rm(join(cli.root, 'assets'), { recursive: true });
  for (const entry of await readdir(join(cli.root, 'parts'))) {
    if (parts.some((part) => entry.startsWith(`${part}-`))) await rm(join(cli.root, 'parts', entry));
  }
  return cli;
}

/** Waits until set-up makes the part. It prints no messages for tasks that take less than two seconds. */
async function begins(part: string, setup: Typed, { root }: CliNode): Promise<void> {
  const isMaking = async () =>
    (await readdir(join(root, 'parts'))).some((name) => name.startsWith(`${makingPrefix}${part}-`)) || undefined;
  const gone = new AbortController();
  void setup.ended.then(() => gone.abort());
  const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(60_000)]);
  const found = await poll(isMaking, { everyMs: 5, signal });
  assert.ok(found, `set-up does not make ${part}:\n${setup.stdout()}${setup.stderr()}`);
}

const stateOf = async ({ root }: CliNode) => ({
  unfinished: (await readdir(join(root, 'parts'))).filter((name) => name.startsWith('.')),
  temporary: await readdir(temporary),
  // The node's own network stays: a bridge and its rules of NAT.
  others: (await tracesOf({ directory: root, ids: [] })).filter(
    (line) => !/^(?:file |link |rule -A POSTROUTING )/.test(line),
  ),
});

describe('a set-up that is ended', { skip, timeout: 900_000 }, () => {
  const moments: readonly (readonly [part: string, afterMs: readonly number[]])[] = [
    ['build-root', [0, 500, 2000, 6000]],
    ['sysroot', [1000, 4000]],
    ['kernel', [1500]],
    ['crun', [0, 300, 2000, 4000]],
    ['initramfs', [0, 150, 1000]],
    ['file-server', [0, 100]],
  ];
  for (const [part, times] of moments) {
    it(`leaves nothing of ${part}, and no process`, async () => {
      await using cli = await openWithout(part);
      for (const [round, ms] of times.entries()) {
        const setup = cli.start(['setup']);
        await begins(part, setup, cli);
        await delay(ms); // the exact moment does not matter
        setup.child.kill(round % 2 === 0 ? 'SIGINT' : 'SIGTERM');
        const { code, stderr } = await setup.ended;
        assert.equal(code, round % 2 === 0 ? 130 : 143, stderr);
        assert.deepEqual(await stateOf(cli), { unfinished: [], temporary: [], others: [] });
      }
    });
  }

  it('by SIGKILL leaves no process, and files only until the next one, which completes it', async () => {
    await using cli = await openWithout('initramfs', 'file-server');
    for (const part of ['initramfs', 'file-server']) {
      const setup = cli.start(['setup']);
      await begins(part, setup, cli);
      setup.child.kill('SIGKILL');
      assert.equal((await setup.ended).code, null);
      const isAlone = async () => ((await stateOf(cli)).others.length === 0 ? true : undefined);
      assert.ok(await poll(isAlone, { everyMs: 50, signal: AbortSignal.timeout(60_000) }), 'a process is left');
    }
    const { code, stderr } = await cli.type(['setup']);
    assert.equal(code, 0, stderr);
    const { unfinished, others } = await stateOf(cli);
    assert.deepEqual({ unfinished, others }, { unfinished: [], others: [] });
  });

  it('by a full disk names the reason, and leaves nothing half-made', async () => {
    await using cli = await openWithout('initramfs');
    const kept = `${cli.root}.kept`;
    await rename(cli.root, kept);
    await mkdir(cli.root);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=711', 'podvm-test', cli.root]);
    try {
      await run('cp', ['-a', `${kept}/.`, cli.root]);
      const { code, stderr } = await cli.type(['setup']);
      assert.notEqual(code, 0);
      assert.match(stderr, /No space left on device|ENOSPC/);
      assert.match(stderr, /\n {2}fix: Free /);
      const { unfinished, temporary: files, others } = await stateOf(cli);
      assert.deepEqual({ unfinished, files }, { unfinished: [], files: [] });
      assert.deepEqual(
        others.filter((trace) => !trace.startsWith('mount podvm-test ')),
        [],
      );
    } finally {
      await run('umount', [cli.root]);
      await rmdir(cli.root);
      await rename(kept, cli.root);
    }
  });

  it('by a full table of descriptors says what to do, and leaves nothing half-made', async () => {
    await using cli = await openWithout('initramfs', 'modules');
    const program = join(temporary, 'podvm-with-few');
    let failures = 0;
    for (let limit = 24; limit <= 64; limit += 8) {
      await writeFile(program, `#!/bin/sh\nulimit -n ${limit}\nexec ${join(repo, 'podvm')} "$@"\n`, { mode: 0o755 });
      const { code, stderr } = await cli.start(['setup'], '', program).ended;
      await rm(program);
      if (code === 0) break;
      failures += 1;
      assert.match(stderr, /short of file descriptors|Too many open files|EMFILE/);
      assert.match(stderr, /\n {2}fix: Raise the limit of podvm /);
      assert.deepEqual(await stateOf(cli), { unfinished: [], temporary: [], others: [] });
    }
    assert.ok(failures > 0, 'set-up needs no more than 24 descriptors');
    const { code, stderr } = await cli.type(['setup']);
    assert.equal(code, 0, stderr);
  });

  it('is completed by the next one, which makes the same programs byte for byte with any umask', async () => {
    const sums = [];
    for (const umask of [0o022, 0o077]) {
      await using cli = await openWithout('initramfs', 'file-server', 'modules');
      const ended = cli.start(['setup']);
      await begins('initramfs', ended, cli);
      ended.child.kill('SIGINT');
      await ended.ended;
      const usual = process.umask(umask);
      const { code, stderr } = await cli.type(['setup']).finally(() => process.umask(usual));
      assert.equal(code, 0, stderr);
      const found: Record<string, string> = {};
      for (const part of await readdir(join(cli.root, 'parts'))) {
        for (const file of ['initramfs.img', 'agent', 'files', 'modules.erofs']) {
          const bytes = await readFile(join(cli.root, 'parts', part, file)).catch(() => undefined);
          if (bytes !== undefined) found[file] = createHash('sha256').update(bytes).digest('hex');
        }
      }
      assert.deepEqual(Object.keys(found).sort(), ['agent', 'files', 'initramfs.img', 'modules.erofs']);
      sums.push(found);
    }
    assert.deepEqual(sums[0], sums[1]);
  });
});
