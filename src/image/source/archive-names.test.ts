import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupByName, loadNames, mergeImages } from './archive-names.ts';
import type { ImageSource } from './layout.ts';

const source = (id: string): ImageSource => ({
  id,
  config: { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } },
  layers: [],
  level: 1,
});
const platform = (architecture: string) => ({ os: 'linux', architecture });

test('groupByName() groups entries of one name, and unnamed ones if each has its own platform', () => {
  const entry = (names: readonly string[], architecture?: string) => ({
    names,
    platform: architecture === undefined ? undefined : platform(architecture),
  });
  const groups = (...entries: readonly ReturnType<typeof entry>[]) =>
    groupByName(entries).map(({ name, members }) => [name, members.map((one) => entries.indexOf(one))]);
  assert.deepEqual(groups(entry(['a:1', 'a:2'], 'arm64'), entry(['a:1'], 'amd64')), [
    ['a:1', [0, 1]],
    ['a:2', [0]],
  ]);
  assert.deepEqual(groups(entry([], 'arm64'), entry([], 'amd64')), [[undefined, [0, 1]]]);
  for (const second of ['arm64', undefined]) {
    assert.deepEqual(groups(entry([], 'arm64'), entry([], second)), [
      [undefined, [0]],
      [undefined, [1]],
    ]);
  }
});

test('mergeImages() merges entries that became the same image', () => {
  const found = [
    { name: 'a:1', source: source('x') },
    { name: undefined, source: source('y') },
    { name: 'b:1', source: source('x') },
  ];
  assert.deepEqual(mergeImages(found), [
    { names: ['a:1', 'b:1'], source: source('x') },
    { names: [], source: source('y') },
  ]);
});

test('loadNames() refuses a mere tag and a name with a digest, and says what to give instead', () => {
  const given = (names: readonly string[], name?: string) =>
    loadNames('x.tar', [{ names, source: source('x') }], name)[0]?.references;
  assert.deepEqual(given(['shop/app:1', '2.1']), ['docker.io/shop/app:1']);
  assert.deepEqual(given(['shop/app']), ['docker.io/shop/app:latest']);
  assert.deepEqual(given(['2.1'], 'app'), ['docker.io/library/app:latest']);
  assert.deepEqual(given(['shop/app:1'], 'app:2'), ['docker.io/library/app:2']);
  const digest = `sha256:${'1'.repeat(64)}`;
  const refused = (attempt: () => unknown, message: RegExp, fix: RegExp) =>
    assert.throws(attempt, { kind: 'invalid', message, fix });
  for (const tag of ['2.1', 'latest', 'v1_2', 'hello']) {
    refused(
      () => given([tag]),
      new RegExp(`x\\.tar: an image in it has only the tag ${tag}, and no name$`),
      /--name NAME:/,
    );
  }
  refused(() => given([]), /has no name$/, /--name/);
  refused(() => given([`app:1@${digest}`]), /has no name$/, /--name/);
  refused(() => given(['a:1'], `app@${digest}`), /a digest cannot be given as a name$/, /a tag/);
  refused(() => loadNames('x.tar', [], undefined), /it contains no image$/, /./);
  const two = ['x', 'y'].map((id) => ({ names: [`${id}:1`], source: source(id) }));
  refused(() => loadNames('x.tar', two, 'a:1'), /it has 2 images, and one name was given$/, /one by one/);
});
