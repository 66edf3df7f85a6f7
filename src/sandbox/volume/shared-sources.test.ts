import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { createSharedSources, type Hold } from './shared-sources.ts';

/** A source that counts its live instances per key, of which there must never be two. */
function place() {
  const there = new Map<string, number>();
  let failures = 0;
  const make = async (key: string) => {
    await Promise.resolve();
    if (failures > 0) {
      failures -= 1;
      throw new PodvmError('unavailable', 'not today');
    }
    const count = (there.get(key) ?? 0) + 1;
    there.set(key, count);
    assert.equal(count, 1, `${key} is there twice`);
    return {
      async [Symbol.asyncDispose]() {
        await Promise.resolve();
        there.set(key, (there.get(key) ?? 0) - 1);
      },
    };
  };
  return { there, make, failNext: (count: number) => void (failures = count) };
}

test('hold() makes a source for the first holder, and it ends after the last, in any order', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ key: fc.constantFrom('a', 'b'), deed: fc.constantFrom('hold', 'release', 'fail') }), {
        maxLength: 20,
      }),
      async (deeds) => {
        const { there, make, failNext } = place();
        const sources = createSharedSources<AsyncDisposable>((_key, error) => assert.fail(String(error)));
        const holding: Promise<Hold<AsyncDisposable> | undefined>[] = [];
        const releasing: Promise<unknown>[] = [];
        for (const { key, deed } of deeds) {
          if (deed === 'fail') failNext(1);
          else if (deed === 'hold') holding.push(sources.hold(key, () => make(key)).catch(() => undefined));
          else
            releasing.push((holding.pop() ?? Promise.resolve(undefined)).then((hold) => hold?.[Symbol.asyncDispose]()));
        }
        for (const hold of await Promise.all(holding)) await hold?.[Symbol.asyncDispose]();
        await Promise.all(releasing);
        assert.deepEqual([...there.values()].filter(Boolean), []);
      },
    ),
  );
});

test('a hold that is released twice counts once', async () => {
  const { there, make } = place();
  const sources = createSharedSources<AsyncDisposable>(() => {});
  const one = await sources.hold('a', () => make('a'));
  const other = await sources.hold('a', () => make('a'));
  await one[Symbol.asyncDispose]();
  await one[Symbol.asyncDispose]();
  assert.equal(there.get('a'), 1);
  await other[Symbol.asyncDispose]();
  assert.equal(there.get('a'), 0);
});

test('a failed release of a source is reported, and retried at the end until it succeeds', async () => {
  let isStuck = true;
  let tries = 0;
  const told: string[] = [];
  const sources = createSharedSources<AsyncDisposable>((key) => told.push(key));
  const source = {
    async [Symbol.asyncDispose]() {
      tries += 1;
      if (isStuck) throw new PodvmError('busy', 'in use');
    },
  };
  const hold = await sources.hold('a', async () => source);
  await hold[Symbol.asyncDispose]();
  assert.deepEqual(told, ['a']);
  await assert.rejects(async () => await sources[Symbol.asyncDispose](), AggregateError);
  isStuck = false;
  await sources[Symbol.asyncDispose]();
  await sources[Symbol.asyncDispose]();
  assert.equal(tries, 3);
  await assert.rejects(
    sources.hold('b', async () => source),
    { kind: 'cancelled' },
  );
});

test('an unusable value stays for its holders, and is made again for the next', async () => {
  const made: { isUsable: boolean; isGone: boolean }[] = [];
  const make = async () => {
    const thing = { isUsable: true, isGone: false, [Symbol.asyncDispose]: async () => void (thing.isGone = true) };
    made.push(thing);
    return thing;
  };
  const sources = createSharedSources<Awaited<ReturnType<typeof make>>>(
    (_key, error) => assert.fail(String(error)),
    ({ isUsable }) => isUsable,
  );
  const [first, second] = [await sources.hold('a', make), await sources.hold('a', make)];
  assert.equal(made.length, 1);
  first.value.isUsable = false;
  const third = await sources.hold('a', make);
  assert.equal(made.length, 2);
  assert.notEqual(third.value, first.value);
  await first[Symbol.asyncDispose]();
  assert.equal(first.value.isGone, false);
  await second[Symbol.asyncDispose]();
  assert.equal(first.value.isGone, true);
  assert.equal((await sources.hold('a', make)).value, third.value);
  const fourth = await sources.hold('b', make);
  fourth.value.isUsable = false;
  await sources.hold('b', make);
  await sources[Symbol.asyncDispose]();
  assert.ok(made.every(({ isGone }) => isGone));
});
