import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import type { Image, ImageStore } from '../images.ts';

/** A store, and a registry with an image under `reference` and none under `missing`. */
export interface ImagesHarness extends AsyncDisposable {
  readonly store: ImageStore;
  /** Full names with a tag. */
  readonly reference: string;
  readonly missing: string;
}

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

/** The suite that every `ImageStore` passes, by theme. */
export function describeImageStore(
  name: string,
  open: () => Promise<ImagesHarness>,
  skip: string | false = false,
): void {
  describe(`the ${name} image store`, { timeout: 300_000, skip }, () => {
    let harness: ImagesHarness;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    describe('pull()', () => describePulls(() => harness));
    describe('names', () => describeNames(() => harness));
    describe('hold()', () => describeHolds(() => harness));
  });
}

type Harness = () => ImagesHarness;

/** Pulls the image, and removes it at the end. */
async function pulled({ store, reference }: ImagesHarness): Promise<Image & AsyncDisposable> {
  const image = await store.pull(reference, {}, soon());
  const remove = async () => void (store.get(image.id) && (await store.remove(image.id)));
  return { ...image, [Symbol.asyncDispose]: remove };
}

function describePulls(harness: Harness): void {
  test('refuses invalid names, and names that no registry has', async () => {
    const { store, missing } = harness();
    for (const name of ['', 'UPPER', 'a b', 'name:', 'name@sha256:1'])
      await assert.rejects(store.pull(name, {}, soon()), kind('invalid'), name);
    await assert.rejects(store.pull(missing, {}, soon()), kind('notFound'));
    assert.deepEqual(store.list(), []);
  });

  test('gives an image its id, its full name and a digest, once', async () => {
    const { store, reference } = harness();
    await using image = await pulled(harness());
    assert.match(image.id, /^sha256:[0-9a-f]{64}$/);
    assert.deepEqual(image.references, [reference]);
    assert.match(image.digests[0] ?? '', /^[^@]+@sha256:[0-9a-f]{64}$/);
    assert.ok(image.sizeBytes > 0);
    const again = await store.pull(reference, {}, soon());
    assert.deepEqual([again.id, again.references, again.digests], [image.id, image.references, image.digests]);
    assert.equal(store.list().length, 1);
  });

  test('leaves nothing when it is cancelled', async () => {
    const { store, reference } = harness();
    await assert.rejects(store.pull(reference, {}, AbortSignal.abort()), kind('cancelled'));
    assert.equal(store.get(reference), undefined);
  });
}

function describeNames(harness: Harness): void {
  test('lead to the image: its references, digests, id, and the beginning of that', async () => {
    const { store } = harness();
    await using image = await pulled(harness());
    const hex = image.id.slice('sha256:'.length);
    for (const name of [...image.references, ...image.digests, image.id, hex, hex.slice(0, 12)])
      assert.equal(store.get(name)?.id, image.id, name);
    assert.equal(store.get('docker.io/library/none:1'), undefined);
    assert.equal(store.get(`sha256:${'0'.repeat(64)}`), undefined);
  });

  test('are completed as in Docker, given, and removed one by one, the image with the last', async () => {
    const { store, reference } = harness();
    await using image = await pulled(harness());
    await assert.rejects(store.tag(reference, `app@sha256:${'1'.repeat(64)}`), kind('invalid'));
    await assert.rejects(store.tag('none:1', 'app:1'), kind('notFound'));
    assert.deepEqual((await store.tag(reference, 'app')).references, [reference, 'docker.io/library/app:latest']);
    assert.equal(store.get('app')?.id, image.id);
    assert.deepEqual(await store.untag('app'), { untagged: ['docker.io/library/app:latest'] });
    assert.equal(store.get('app'), undefined);
    assert.equal((await store.untag(reference)).removed, image.id);
    assert.deepEqual(store.list(), []);
    await assert.rejects(store.untag(reference), kind('notFound'));
    await assert.rejects(store.remove(image.id), kind('notFound'));
  });
}

function describeHolds(harness: Harness): void {
  test('uses a present image, fetches a missing one, and does not fetch with Never', async () => {
    const { store, reference, missing } = harness();
    await assert.rejects(store.hold(reference, 'Never', soon()), kind('notFound'));
    await assert.rejects(store.hold(missing, 'IfNotPresent', soon()), kind('notFound'));
    const held = await store.hold(reference, 'IfNotPresent', soon());
    await using image = await pulled(harness());
    for (const policy of ['Never', 'IfNotPresent', 'Always'] as const) {
      await using again = await store.hold(reference, policy, soon());
      assert.deepEqual([again.id, again.config], [image.id, image.config], policy);
    }
    await held[Symbol.asyncDispose]();
  });

  test('keeps the image and its file until each holder has let go, once', async () => {
    const { store, reference } = harness();
    await using image = await pulled(harness());
    const [one, other] = [await store.hold(reference, 'Never', soon()), await store.hold(image.id, 'Never', soon())];
    await access(one.rootfsPath);
    assert.equal(other.rootfsPath, one.rootfsPath);
    assert.equal(await one.findDamage(soon()), undefined);
    await one[Symbol.asyncDispose]();
    await one[Symbol.asyncDispose]();
    await assert.rejects(store.remove(reference), kind('busy'));
    await assert.rejects(store.untag(reference), kind('busy'));
    await other[Symbol.asyncDispose]();
    await store.remove(reference);
    await assert.rejects(access(one.rootfsPath), { code: 'ENOENT' });
  });

  test('holds nothing when it is cancelled', async () => {
    const { store, reference } = harness();
    await using _image = await pulled(harness());
    await assert.rejects(store.hold(reference, 'Always', AbortSignal.abort()), kind('cancelled'));
    await store.remove(reference);
  });

  test("makes the examples' image, whatever the policy", async () => {
    const { store } = harness();
    const held = await store.hold('localhost/podvm/base:latest', 'Never', soon());
    await access(held.rootfsPath);
    await held[Symbol.asyncDispose]();
    await store.remove(held.id);
  });
}
