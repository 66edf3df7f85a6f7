import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readAnswer } from './job.ts';

const digest = `sha256:${'0'.repeat(64)}`;

const members = { file: 'members-0', digest };

test('readAnswer() accepts the answers of the program', () => {
  for (const answer of [
    { flattened: 'rootfs.erofs', digest, layers: [] },
    { flattened: 'rootfs.erofs', digest, layers: [{ at: 1, file: 'layer-0', digest, members }] },
    { files: [['a/layer.tar', 'member-0']], links: [['b', 'a/layer.tar']] },
    { error: { kind: 'corrupt', message: 'Cannot use it', fix: 'Fetch it', cause: 'why', tail: ['last'] } },
  ])
    assert.deepEqual(readAnswer(JSON.stringify(answer)), answer);
});

test('readAnswer() refuses paths, kinds and texts that the program never sends', () => {
  for (const answer of [
    { flattened: '../../etc/shadow', digest, layers: [] },
    { flattened: 'rootfs.erofs', digest, layers: [{ at: 1, file: '../layer-0', digest, members }] },
    { flattened: 'rootfs.erofs', digest, layers: [{ at: 1, file: 'layer-0', digest: '../x', members }] },
    { flattened: 'rootfs.erofs', digest, layers: [{ at: 1, file: 'layer-0', digest, members: { file: 'x', digest } }] },
    { files: [['a', '../member-0']], links: [] },
    { files: [['a', 'member-0/../x']], links: [] },
    { files: [['a'.repeat(5000), 'member-0']], links: [] },
    { error: { kind: 'denied', message: 'x' } },
    { error: { kind: 'corrupt', message: 'x'.repeat(5000) } },
    { error: { kind: 'corrupt' } },
    [],
    null,
  ])
    assert.equal(readAnswer(JSON.stringify(answer)), undefined, JSON.stringify(answer).slice(0, 100));
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (said) => assert.equal(readAnswer(said), undefined)));
});
