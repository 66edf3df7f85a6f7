import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readVersions } from './versions.ts';

test('readVersions() lists the parts once set-up has made them', async () => {
  await using root = await mkdtempDisposable(join(tmpdir(), 'podvm-versions-'));
  const repo = join(import.meta.dirname, '../../..');
  const before = await readVersions({ root: root.path, repo }, '1.2.3');
  assert.deepEqual([before.podvm, before.wire, before.record, before.qemu], ['1.2.3', 2, 4, undefined]);
  assert.match(before.agent, /^[0-9a-f]{16}$/);
  const paths = ['sysroot', 'kernel', 'initramfs', 'modules', 'fileServer', 'agent', 'key', 'generation'];
  const made = { qemuVersion: '10.0', kernelVersion: '6.12', crunVersion: '1.21', versions: {}, parts: [] };
  await mkdir(join(root.path, 'assets'));
  const current = { ...Object.fromEntries(paths.map((name) => [name, name])), ...made };
  await writeFile(join(root.path, 'assets/current.json'), JSON.stringify(current));
  const { qemu, kernel, crun } = await readVersions({ root: root.path, repo }, '1.2.3');
  assert.deepEqual([qemu, kernel, crun], ['10.0', '6.12', '1.21']);
});
