import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { checkPushed, pushVolume } from './push-volume.ts';
import type { VolumeFile } from '../sandbox.ts';

const limits = { maxBytes: 10, maxFiles: 2, maxDepth: 4 };
const file = (path: string, length: number, more: Partial<VolumeFile> = {}): VolumeFile => ({
  path,
  bytes: new Uint8Array(length),
  mode: 0o644,
  ...more,
});
const refused = (kind: string, words: RegExp) => (error: unknown) =>
  error instanceof PodvmError && error.kind === kind && words.test(error.message);

test('checkPushed() accepts exactly the limit, and refuses one byte or file more by name', () => {
  checkPushed('app', [file('a', 4), file('b', 6)], limits);
  assert.throws(
    () => checkPushed('app', [file('a', 4), file('b', 7)], limits),
    refused('exhausted', /volume app: .* at most 10 bytes, got 11$/),
  );
  assert.throws(
    () => checkPushed('app', [file('a', 0), file('b', 0), file('c', 0)], limits),
    refused('exhausted', /at most 2 files, got 3$/),
  );
});

test('checkPushed() refuses a path that leaves the volume', () => {
  for (const path of ['../x', '/x', 'a//b', 'a/./b', '']) {
    assert.throws(() => checkPushed('app', [file(path, 0)], limits), refused('invalid', /relative/), path);
  }
});

test('pushVolume() sends large files in parts, with owners and without set-id bits', async () => {
  const sent: Record<string, unknown>[] = [];
  const call = async (method: string, params: object) => {
    if (method === 'pushFile') sent.push({ ...params });
    return { push: 7 };
  };
  const guest = { call } as unknown as Parameters<typeof pushVolume>[0]; // SAFE: it only calls what is answered here
  const files = [file('big', 64 * 1024 + 1, { mode: 0o4640, uid: 1000, gid: 2000 }), file('empty', 0)];
  await pushVolume(guest, 'app', files, new AbortController().signal);
  assert.deepEqual(
    sent.map(({ data, ...rest }) => ({ ...rest, bytes: Buffer.from(String(data), 'base64').length })),
    [
      { push: 7, path: 'big', mode: 0o640, uid: 1000, gid: 2000, bytes: 64 * 1024 },
      { push: 7, path: 'big', mode: 0o640, uid: 1000, gid: 2000, bytes: 1 },
      { push: 7, path: 'empty', mode: 0o644, bytes: 0 },
    ],
  );
});
