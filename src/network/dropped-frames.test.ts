import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DroppedFrames, dropsById, dropsIn } from './dropped-frames.ts';
import { netnsName } from './netns.ts';

test('requests of the same moment share one count, and later ones get another', async () => {
  const counted: (readonly string[])[] = [];
  const frames = new DroppedFrames(async (ids) => {
    counted.push(ids);
    return new Map(ids.filter((id) => id !== 'gone').map((id) => [id, counted.length]));
  });
  const gone = assert.rejects(frames.of('gone'), { kind: 'notFound' });
  assert.deepEqual(await Promise.all([frames.of('a'), frames.of('b'), frames.of('a')]), [1, 1, 1]);
  await gone;
  assert.equal(await frames.of('a'), 2);
  assert.deepEqual(counted, [['gone', 'a', 'b'], ['a']]);
});

test('a request that takes an older count has one process count for all of its kind', async () => {
  const counted: (readonly string[])[] = [];
  let nowMs = 0;
  const count = async (ids: readonly string[]) => {
    counted.push(ids);
    return new Map(ids.filter((id) => id !== 'gone').map((id) => [id, counted.length]));
  };
  const frames = new DroppedFrames(count, () => nowMs);
  assert.deepEqual(await Promise.all([frames.of('a', 60), frames.of('b', 60)]), [1, 1]);
  await assert.rejects(frames.of('gone', 60), { kind: 'notFound' });
  assert.deepEqual(counted.splice(0), [
    ['a', 'b'],
    ['gone', 'a', 'b'],
  ]);
  nowMs = 61;
  assert.equal(await frames.of('b', 60), 1);
  nowMs = 100;
  assert.deepEqual([await frames.of('a', 60), await frames.of('b', 60)], [1, 1], 'both are of one count');
  assert.deepEqual(counted.splice(0), [['b', 'a']]);
  assert.equal(await frames.of('a'), 1, 'a request that takes none gets a new one, of itself');
  assert.deepEqual(counted.splice(0), [['a']]);
  nowMs = 122;
  assert.equal(await frames.of('a', 60), 1);
  assert.deepEqual(
    counted,
    [['a', 'b']].map((ids) => ids.toSorted()),
  );
});

test('a count that fails fails only the requests that shared it', async () => {
  let calls = 0;
  const frames = new DroppedFrames(async (ids) => {
    calls += 1;
    if (calls === 1) throw new Error('no tc');
    return new Map(ids.map((id) => [id, 0]));
  });
  const both = await Promise.allSettled([frames.of('a'), frames.of('b')]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.equal(await frames.of('a'), 0);
});

test('dropsIn() reads the drops of the incoming queue', () => {
  assert.equal(dropsIn('[{"kind":"fq_codel","drops":7},{"kind":"ingress","handle":"ffff:","drops":3}]'), 3);
  assert.equal(dropsIn('[{"kind":"noqueue"}]'), 0);
  for (const text of ['', 'Cannot open network namespace', '[{"kind":"ingress","drops":7}', '[{"drops":1}]'])
    assert.equal(dropsIn(text), undefined, text);
});

test('dropsById() leaves out a netns of which tc says nothing that it knows, and no other', () => {
  const [broken, good, gone] = ['a'.repeat(16), 'b'.repeat(16), 'c'.repeat(16)];
  const stdout = [
    `netns ${netnsName(broken)}\n[{"kind":"ingress","dr`,
    `netns ${netnsName(good)}\n[{"kind":"ingress","drops":3}]\n`,
    `netns ${netnsName(gone)}\nunknown\n`,
  ].join('\n');
  assert.deepEqual([...dropsById(stdout, [broken, good, gone])], [[good, 3]]);
});
