import assert from 'node:assert/strict';
import { rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { readDiskUsage } from '#daemon/node/disk-usage.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { openCliNode } from './cli-node.ts';
import { readAssets, whyNoVm } from './node.ts';

const podvm = join(import.meta.dirname, '../../podvm');
const root = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
const megabyte = 1000 * 1000;

/** Files below a directory, with the times at which content and inode changed. */
async function timesOf(directory: string): Promise<readonly string[]> {
  const { stdout } = await run('find', [directory, '-printf', '%P %T@ %C@\\n'], { maxOutputBytes: 64 * megabyte });
  return stdout.split('\n').sort();
}

describe('a set-up that is done', { skip: await whyNoVm() }, () => {
  test('needs no network the second time, and changes nothing', async () => {
    const places = ['assets', 'parts', 'templates'].map((name) => join(root, name));
    const before = await Promise.all(places.map(timesOf));
    const { stdout, stderr } = await run('unshare', ['--net', podvm, 'setup'], {
      env: { ...process.env, PODVM_ROOT: root },
    });
    assert.match(stdout, /^ready: QEMU \S+, guest kernel \S+, crun \S+\n$/);
    assert.equal(stderr, '');
    assert.deepEqual(await Promise.all(places.map(timesOf)), before);
  });

  test('with --config follows the settings of the daemon, and refuses what that would refuse', async () => {
    await using node = await openCliNode({ isSetUp: true });
    const [file, templates] = [join(node.root, 'podvm.yaml'), join(node.root, 'templates')];
    await rm(templates, { recursive: true });
    await writeFile(file, 'template: off\n');
    const { code, stdout, stderr } = await node.type(['setup', '--config', file]);
    assert.deepEqual([code, stdout.slice(0, 6), stderr], [0, 'ready:', '']);
    assert.ok(!(await isThere(templates)));
    for (const [text, why] of [
      ['swap: maybe\n', /swap.*maybe/],
      ['metricsAddress: 0.0.0.0:9100\n', /metricsAddress/],
      ['pol: 3\n', /`pol` is not a setting; did you mean pool\?/],
    ] as const) {
      await writeFile(file, text);
      const refused = await node.type(['setup', '--config', file]);
      assert.equal(refused.code, 125);
      assert.match(refused.stderr, why);
    }
    assert.ok(!(await isThere(templates)));
  });

  test('has made an agent of at most 2.3 MB, and an initramfs of at most 8', async () => {
    const assets = await readAssets();
    assert.ok(assets);
    const bytesOf = async (path: string) => (await stat(path)).size;
    const [agent, initramfs] = [
      await bytesOf(join(dirname(assets.initramfs), 'agent')),
      await bytesOf(assets.initramfs),
    ];
    assert.ok(agent <= 2.3 * megabyte, `the agent has ${agent} bytes`);
    assert.ok(initramfs <= 8 * megabyte, `the initramfs has ${initramfs} bytes`);
  });

  test('keeps parts of at most 350 MB, or 450 with the small kernel', async () => {
    const { uses } = await readDiskUsage(root, AbortSignal.timeout(120_000));
    const parts = uses.filter(({ kind, isOld }) => kind === 'part' && !isOld);
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    const mostBytes = (parts.some(({ name }) => name?.startsWith('small-kernel-')) ? 450 : 350) * megabyte;
    assert.ok(bytes <= mostBytes, `the parts have ${bytes} bytes`);
    assert.ok(bytes > 100 * megabyte, `the parts have only ${bytes} bytes`);
  });
});
