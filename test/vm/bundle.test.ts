import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtempDisposable, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const repo = join(import.meta.dirname, '../..');
const isMaker = /^(?:.*gcc.*|cc|c[89]9.*|mmdebstrap|apt-get|npm)$/;

/** A directory with links to the host's programs, except for those that compile or fetch. */
async function withoutMakers(directory: string): Promise<string> {
  const path = join(directory, 'bin');
  await mkdir(path);
  for (const from of ['/usr/bin', '/usr/sbin']) {
    for (const name of await readdir(from)) {
      if (!isMaker.test(name)) await symlink(join(from, name), join(path, name)).catch(() => undefined); // the name is in both directories
    }
  }
  return path;
}

describe('a bundle', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  it('sets up a machine that has no network and no compiler, which then runs a pod', async () => {
    await using work = await mkdtempDisposable('/var/tmp/podvm-bundle-');
    const file = join(work.path, 'podvm.bundle');
    await run(join(repo, 'podvm'), ['setup', '--bundle', file], {
      env: { ...process.env } as never,
      timeoutMs: 300_000,
    });
    const alone = join(work.path, 'podvm');
    const path = await withoutMakers(work.path);
    await writeFile(alone, `#!/bin/sh\nPATH=${path} exec unshare --net ${join(repo, 'podvm')} "$@"\n`);
    await chmod(alone, 0o755);

    await using node = await openCliNode({ isSetUp: false, podvm: alone });
    const setUp = await node.type(['setup', '--from', file]);
    assert.deepEqual([setUp.code, setUp.stdout.slice(0, 6)], [0, 'ready:'], setUp.stderr);
    assert.equal((await readdir(join(node.root, 'templates'))).length, 1);
    const parts = await readdir(join(node.root, 'parts'));
    assert.ok(!parts.some((part) => part.startsWith('build-root-')), parts.join(' '));
    const ran = await node.type(['run', join(repo, 'examples/hello.yaml')]);
    assert.deepEqual([ran.code, ran.stdout.slice(0, 6)], [0, 'Hello '], ran.stderr);
    assert.equal(ran.stderr, ''); // it made neither parts nor a template
  });
});
