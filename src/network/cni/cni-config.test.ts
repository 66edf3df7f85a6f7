import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import { readNetwork, requireNetwork } from './cni-config.ts';

const list = { cniVersion: '1.0.0', name: 'cluster', plugins: [{ type: 'bridge' }] };

/** Reads a directory that contains these files. */
async function readFrom(files: Readonly<Record<string, unknown>>) {
  await using directory = await makeDirectory(files);
  return await readNetwork(directory.path);
}

async function makeDirectory(files: Readonly<Record<string, unknown>>) {
  const path = await mkdtemp(join(tmpdir(), 'podvm-net.d-'));
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

test('readNetwork() reads the first configuration by name, of any kind, and ignores other files', async () => {
  assert.equal(await readFrom({}), undefined);
  assert.equal(await readFrom({ '10-x.conflist.tmp': list, 'calico-kubeconfig': 'x' }), undefined);
  assert.equal(await readNetwork('/nowhere/net.d'), undefined);
  const found = await readFrom({ '20-b.conflist': { ...list, name: 'b' }, '10-a.conflist': { ...list, name: 'a' } });
  assert.equal(found?.conflist.name, 'a');
  assert.match(found.path, /10-a\.conflist$/);
});

test('readNetwork() reads a single plugin as a list of one', async () => {
  const single = { cniVersion: '0.3.1', name: 'old', type: 'ptp', mtu: 1400 };
  for (const name of ['1.conf', '1.json']) {
    const found = await readFrom({ [name]: single, '2.conflist': list });
    assert.deepEqual(found?.conflist, { cniVersion: '0.3.1', name: 'old', plugins: [single] });
  }
  await assert.rejects(readFrom({ '1.conf': list }), { kind: 'failedPrecondition', message: /type/ });
});

test('readNetwork() uses the newest version that is both offered and supported', async () => {
  const found = await readFrom({ '1.conflist': { ...list, cniVersions: ['0.4.0', '1.1.0', '9.0.0'] } });
  assert.equal(found?.conflist.cniVersion, '1.1.0');
});

test('readNetwork() fails on an invalid file, and names it', async () => {
  const wrong = ['', '{', '[]', { ...list, plugins: [] }, { ...list, cniVersion: '0.1.0' }, { ...list, name: '../x' }];
  for (const content of wrong) {
    const reading = readFrom({ '1.conflist': content, '2.conflist': list });
    await assert.rejects(reading, { kind: 'failedPrecondition', message: /1\.conflist: / });
  }
  const huge = readFrom({ '1.conflist': ' '.repeat(1024 * 1024 + 1) });
  await assert.rejects(huge, { kind: 'failedPrecondition', message: /more than/ });
});

test('readNetwork() does not wait for a FIFO', async () => {
  await using directory = await makeDirectory({});
  await run('mkfifo', [join(directory.path, '1.conflist')]);
  await mkdir(join(directory.path, '0.conflist'));
  await assert.rejects(readNetwork(directory.path), { kind: 'failedPrecondition', message: /no regular file/ });
});

test('requireNetwork() names the directory that it searched', async () => {
  await assert.rejects(requireNetwork('/nowhere/net.d'), { kind: 'failedPrecondition', message: /\/nowhere\/net\.d/ });
});
