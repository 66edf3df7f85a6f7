import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Image } from './images.ts';
import { findImage, namesOf, withNames, withoutName } from './names.ts';
import { parseReference } from '#base/image-reference.ts';

const digestOf = (digit: string) => `sha256:${digit.repeat(64)}`;
const [one, two] = [digestOf('1'), digestOf('2')];
const image = (digit: string, references: readonly string[] = [], digests: readonly string[] = []): Image => ({
  id: digestOf(digit),
  references,
  digests,
  sizeBytes: 1,
  createdAt: '',
  config: {},
});
const byId = (...images: readonly Image[]) => new Map(images.map((each) => [each.id, each]));

test('namesOf() keeps a tag only if the request has no digest, and always lists the digest', () => {
  const of = (text: string) => namesOf(parseReference(text), [one, two]);
  const digests = [`r.example/app@${one}`, `r.example/app@${two}`];
  assert.deepEqual(of('r.example/app'), { references: ['r.example/app:latest'], digests });
  assert.deepEqual(of('r.example/app:stable'), { references: ['r.example/app:stable'], digests });
  assert.deepEqual(of(`r.example/app@${one}`), { references: [], digests });
  assert.deepEqual(of(`r.example/app:stable@${one}`), { references: [], digests });
});

test('findImage() looks for a name, then for an id or its first digits', () => {
  const named = image('a', ['docker.io/library/bbbbbbbbbbbb:latest'], [`docker.io/library/app@${one}`]);
  const other = image('b');
  const images = byId(named, other);
  const found = (text: string) => findImage(images, text);
  assert.deepEqual(found(`app@${one}`), { image: named, by: 'name' });
  assert.deepEqual(found(`app:gone@${one}`), { image: named, by: 'name' });
  assert.deepEqual(found('bbbbbbbbbbbb'), { image: named, by: 'name' });
  assert.deepEqual(found('b'.repeat(13)), { image: other, by: 'id' });
  for (const id of [other.id, 'b'.repeat(64)]) assert.deepEqual(found(id), { image: other, by: 'id' });
  for (const missing of [digestOf('c'), 'c'.repeat(64), 'c'.repeat(12), 'b'.repeat(11), `app@${two}`, 'app:1']) {
    assert.equal(found(missing), undefined, missing);
  }
  assert.throws(() => found('NO NAME'), { kind: 'invalid' });
  const alike = byId(image('a'), { ...image('a'), id: `sha256:${'a'.repeat(63)}b` });
  assert.equal(findImage(alike, 'a'.repeat(12)), undefined, 'digits that two ids begin with name neither');
});

test('withNames() moves tags and digests from the images that had them', () => {
  const old = image('a', ['r/app:1', 'r/app:2'], [`r/app@${one}`, `r/app@${two}`]);
  const next = image('b', ['r/other:1']);
  assert.deepEqual(withNames(byId(old, next), next, { references: ['r/app:1'], digests: [`r/app@${two}`] }), [
    image('a', ['r/app:2'], [`r/app@${one}`]),
    image('b', ['r/other:1', 'r/app:1'], [`r/app@${two}`]),
  ]);
  assert.deepEqual(withNames(byId(old, next), next, { references: ['r/other:1'], digests: [] }), [next]);
});

test('withoutName() removes a tag, and a digest with the last tag of its repository', () => {
  const all = image(
    'a',
    ['r.x/app:1', 'r.x/app:2', 'r.x/other:1'],
    [`r.x/app@${one}`, `r.x/app@${two}`, `r.x/other@${one}`],
  );
  const first = withoutName(all, 'r.x/app:1');
  assert.deepEqual(first.untagged, ['r.x/app:1']);
  const second = withoutName(first.image, 'r.x/app:2');
  assert.deepEqual(second.untagged, ['r.x/app:2', `r.x/app@${one}`, `r.x/app@${two}`]);
  const last = withoutName(second.image, `r.x/other:gone@${one}`);
  assert.deepEqual(last.untagged, [`r.x/other@${one}`]);
  assert.deepEqual(last.image, image('a', ['r.x/other:1']));
  const byDigest = withoutName(image('a', [], [`r.x/app@${one}`, `r.x/app@${two}`]), `r.x/app@${two}`);
  assert.deepEqual(byDigest.image, image('a'), 'the digests of an index and of its manifest came as one');
});

test('each name belongs to one image at a time, and can be removed, in any order', () => {
  const reference = fc.constantFrom('r.x/a:1', 'r.x/a:2', 'r.x/b:1', `r.x/a@${one}`, `r.x/a:1@${two}`);
  const step = fc.record({ reference, digit: fc.constantFrom('a', 'b', 'c'), isUntag: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const images = new Map(byId(image('a'), image('b'), image('c')));
      for (const { reference: name, digit, isUntag } of steps) {
        if (isUntag) {
          const found = findImage(images, name);
          if (found === undefined) continue;
          const { image: left, untagged } = withoutName(found.image, name);
          assert.ok(untagged.length > 0);
          images.set(left.id, left);
          assert.equal(findImage(images, name), undefined);
        } else {
          const { digest } = parseReference(name);
          const current = images.get(digestOf(digit)) ?? image(digit);
          for (const changed of withNames(images, current, namesOf(parseReference(name), [digest ?? one]))) {
            images.set(changed.id, changed);
          }
          assert.equal(findImage(images, name)?.image.id, current.id);
        }
        const names = [...images.values()].flatMap((each) => [...each.references, ...each.digests]);
        assert.equal(new Set(names).size, names.length);
      }
    }),
  );
});
