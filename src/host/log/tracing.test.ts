import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPhases } from '#sandbox/state/phases.ts';
import { spanContextOf, type SpanStart, stepRecorder, traced, traceWith } from './tracing.ts';

const trace = '0af7651916cd43dd8448eb211c80319c';

/** Keeps the spans that have ended, with their ids `1`, `2`... */
function keepSpans() {
  const ended: (SpanStart & { readonly id: string; readonly endMs: number; readonly error?: string | undefined })[] =
    [];
  let last = 0;
  const begin = (start: SpanStart) => {
    last += 1;
    const id = String(last);
    return {
      context: { traceId: start.parent?.traceId ?? 'new', spanId: id, isSampled: true },
      end: (endMs: number, error?: string) => void ended.push({ ...start, id, endMs, error }),
    };
  };
  return { ended, tracer: { begin } };
}

test('without a tracer only the work is done', async () => {
  assert.equal(await traced({ name: 'work' }, async () => stepRecorder()), undefined);
});

test("spans have the caller's span or the one around them as their parent, and tell how they end", async () => {
  const { ended, tracer } = keepSpans();
  using _tracing = traceWith(tracer);
  const caller = spanContextOf(`00-${trace}-b7ad6b7169203331-01`);
  const failing = traced({ name: 'inner' }, async () => {
    throw new Error('why');
  });
  await assert.rejects(failing, /why/);
  const both = traced({ name: 'call', caller, isServer: true }, async () => {
    await Promise.all([traced({ name: 'one' }, async () => {}), traced({ name: 'other' }, async () => {})]);
  });
  await both;
  assert.deepEqual(
    ended.map(({ name, id, parent, isServer, error }) => [name, id, parent?.traceId, parent?.spanId, isServer, error]),
    [
      ['inner', '1', undefined, undefined, false, 'why'],
      ['one', '3', trace, '2', false, undefined],
      ['other', '4', trace, '2', false, undefined],
      ['call', '2', trace, 'b7ad6b7169203331', true, undefined],
    ],
  );
});

test('each step of a table is a span of the work that it is a part of, with its time', async (context) => {
  const { ended, tracer } = keepSpans();
  using _tracing = traceWith(tracer);
  let nowMs = 1000;
  context.mock.method(Date, 'now', () => nowMs);
  await traced({ name: 'start' }, async () => {
    const phases = createPhases(() => BigInt(nowMs) * 1_000_000n);
    const starting = async () => {
      await Promise.resolve();
      nowMs += 20;
    };
    await phases.time('machine started', starting());
    phases.add('guest', [
      { name: 'clock', ms: 3 },
      { name: 'entropy', ms: 4 },
    ]);
  });
  assert.deepEqual(
    ended.map(({ name, parent }) => [name, parent?.spanId]),
    [
      ['machine started', '1'],
      ['guest clock', '1'],
      ['guest entropy', '1'],
      ['start', undefined],
    ],
  );
  assert.deepEqual(
    ended.map(({ atMs, endMs }) => [atMs, endMs]),
    [
      [1000, 1020],
      [1013, 1016],
      [1016, 1020],
      [1000, 1020],
    ],
  );
});

test('spanContextOf() reads the header of W3C, and nothing else', () => {
  assert.deepEqual(spanContextOf(`00-${trace}-b7ad6b7169203331-01`), {
    traceId: trace,
    spanId: 'b7ad6b7169203331',
    isSampled: true,
  });
  assert.equal(spanContextOf(`00-${trace}-b7ad6b7169203331-00`)?.isSampled, false);
  for (const header of [
    undefined,
    '',
    `00-${trace}`,
    `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
  ])
    assert.equal(spanContextOf(header), undefined);
});
