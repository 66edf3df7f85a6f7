import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { kindOf } from '#base/errors.ts';
import { headerText, HeaderZip, numbers, rawControl, rawData, synStreamStart } from './frame-encoder.ts';
import { type Frame, FrameReader, types } from './frame.ts';
import { spdyLimits } from './limits.ts';

function framesOf(...pieces: Uint8Array[]): Frame[] {
  const reader = new FrameReader();
  return pieces.flatMap((piece) => [...reader.read(Buffer.from(piece))]);
}

/** Joins the pieces of each data frame, so that frames can be compared for any splitting of their bytes. */
function joined(frames: readonly Frame[]): Frame[] {
  const whole: Frame[] = [];
  for (const frame of frames) {
    const last = whole.at(-1);
    if (frame.kind === 'data' && last?.kind === 'data' && last.streamId === frame.streamId && !last.fin) {
      whole[whole.length - 1] = { ...frame, bytes: Buffer.concat([last.bytes, frame.bytes]) };
    } else whole.push(frame);
  }
  return whole;
}

const refusals: readonly (readonly [string, Buffer])[] = [
  ['a version that is not 3', rawControl(types.ping, 0, numbers(1), 2)],
  ['data on stream 0', rawData(0, Buffer.from('x'), false)],
  ['a control frame larger than the limit', rawControl(types.ping, 0, Buffer.alloc(spdyLimits.controlFrameBytes + 1))],
  ['a ping of five bytes', rawControl(types.ping, 0, Buffer.alloc(5))],
  ['a reset of stream 0', rawControl(types.rstStream, 0, numbers(0, 1))],
  ['a reset without a status', rawControl(types.rstStream, 0, numbers(1))],
  ['a farewell of four bytes', rawControl(types.goAway, 0, numbers(0))],
  ['a window that grows by 0', rawControl(types.windowUpdate, 0, numbers(1, 0))],
  ['settings that promise more than there is', rawControl(types.settings, 0, numbers(2, 7, 1))],
  ['settings that promise 4,000,000,000', rawControl(types.settings, 0, numbers(0xf000_0000))],
  ['a window of 4 GiB', rawControl(types.settings, 0, numbers(1, 7, 0xffff_ffff))],
  ['a stream that ends before its headers', rawControl(types.synStream, 0, numbers(1, 0))],
  [
    'a stream with headers that are not compressed',
    rawControl(types.synStream, 0, Buffer.concat([synStreamStart(1), headerText({ a: 'b' })])),
  ],
  ['a stream with no headers at all', rawControl(types.synStream, 0, synStreamStart(1))],
];

for (const [what, bytes] of refusals) {
  test(`read() refuses ${what}`, () => {
    assert.throws(() => framesOf(bytes), { kind: 'invalid' });
  });
}

test('read() refuses an oversized frame by its length alone, before its payload comes', () => {
  const announced = rawControl(types.ping, 0, Buffer.alloc(spdyLimits.controlFrameBytes + 1)).subarray(0, 8);
  assert.throws(() => framesOf(announced), { kind: 'invalid' });
});

test('read() skips unknown types and returns the following frames', () => {
  const frames = framesOf(
    rawControl(5, 0, Buffer.alloc(3)),
    rawControl(77, 1, Buffer.alloc(0)),
    rawControl(types.ping, 0, numbers(9)),
  );
  assert.deepEqual(frames, [{ kind: 'ping', id: 9 }]);
});

test('read() returns a large data frame in pieces as they arrive, and its end with the last', () => {
  const reader = new FrameReader();
  const frame = rawData(7, Buffer.alloc(16 * 1024 * 1024 - 1, 'x'), true);
  const pieces = [frame.subarray(0, 1000), frame.subarray(1000, -1), frame.subarray(-1)];
  const sizes = pieces.map((piece) =>
    [...reader.read(piece)].map((got) => got.kind === 'data' && [got.bytes.length, got.fin]),
  );
  assert.deepEqual(sizes, [[[992, false]], [[frame.length - 1001, false]], [[1, true]]]);
});

test('read() accepts an end without bytes', () => {
  assert.deepEqual(framesOf(rawData(3, Buffer.alloc(0), true)), [
    { kind: 'data', streamId: 3, bytes: Buffer.alloc(0), fin: true },
  ]);
  assert.deepEqual(framesOf(rawData(3, Buffer.alloc(0), false)), []);
});

interface Made {
  readonly bytes: (zip: HeaderZip) => Promise<Buffer>;
  readonly frame: Frame;
}

const id = fc.integer({ min: 1, max: 0x7fff_ffff });
const word = fc.stringMatching(/^[a-z][a-z-]{0,20}$/);
const headers = fc.dictionary(word, fc.stringMatching(/^[ -~]{0,80}$/), { maxKeys: 8, noNullPrototype: true });
const withHeaders = (type: number, start: (streamId: number) => Buffer, kind: 'synStream' | 'synReply' | 'headers') =>
  fc.record({ streamId: id, fin: fc.boolean(), headers }).map((made): Made => ({
    bytes: async (zip) =>
      rawControl(
        type,
        made.fin ? 1 : 0,
        Buffer.concat([start(made.streamId), await zip.zip(headerText(made.headers))]),
      ),
    frame: { kind, streamId: made.streamId, fin: made.fin, headers: new Map(Object.entries(made.headers)) },
  }));
const plain = (bytes: Buffer, frame: Frame): Made => ({ bytes: () => Promise.resolve(bytes), frame });

const anyFrame: fc.Arbitrary<Made> = fc.oneof(
  withHeaders(types.synStream, synStreamStart, 'synStream'),
  withHeaders(types.synReply, (streamId) => numbers(streamId), 'synReply'),
  withHeaders(types.headers, (streamId) => numbers(streamId), 'headers'),
  fc
    .tuple(id, fc.integer({ min: 1, max: 11 }))
    .map(([streamId, status]) =>
      plain(rawControl(types.rstStream, 0, numbers(streamId, status)), { kind: 'rstStream', streamId, status }),
    ),
  fc.nat(0xffff_ffff).map((ping) => plain(rawControl(types.ping, 0, numbers(ping)), { kind: 'ping', id: ping })),
  fc
    .tuple(fc.nat(0x7fff_ffff), fc.nat(2))
    .map(([lastStreamId, status]) =>
      plain(rawControl(types.goAway, 0, numbers(lastStreamId, status)), { kind: 'goAway', lastStreamId, status }),
    ),
  fc.tuple(fc.nat(0x7fff_ffff), id).map(([streamId, deltaBytes]) =>
    plain(rawControl(types.windowUpdate, 0, numbers(streamId, deltaBytes)), {
      kind: 'windowUpdate',
      streamId,
      deltaBytes,
    }),
  ),
  fc.nat(0x7fff_ffff).map((window) =>
    plain(rawControl(types.settings, 0, numbers(2, 4, 100, 7, window)), {
      kind: 'settings',
      initialWindowBytes: window,
    }),
  ),
  // Each frame ends its stream: without that, two data frames on one stream cannot be distinguished from one in two
  // pieces.
  fc
    .tuple(id, fc.uint8Array({ maxLength: 3000 }))
    .map(([streamId, bytes]) =>
      plain(rawData(streamId, bytes, true), { kind: 'data', streamId, bytes: Buffer.from(bytes), fin: true }),
    ),
);

test('read() reads every frame that a client can make, for any splitting of its bytes', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyFrame, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 0, max: 9 }),
      async (made, cuts, level) => {
        const zip = new HeaderZip(level);
        const parts: Buffer[] = [];
        for (const one of made) parts.push(await one.bytes(zip));
        const stream = Buffer.concat(parts);
        const pieces: Buffer[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn += 1) {
          const length = cuts[turn % cuts.length] ?? 1;
          pieces.push(stream.subarray(at, at + length));
          at += length;
        }
        assert.deepEqual(
          joined(framesOf(...pieces)),
          made.map(({ frame }) => frame),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test('read() reads or refuses random bytes, and throws nothing else', () => {
  const noise = fc.uint8Array({ maxLength: 400 });
  const nearly = fc
    .tuple(fc.integer({ min: 1, max: 9 }), fc.nat(3), noise)
    .map(([type, flags, payload]) => rawControl(type, flags, payload));
  fc.assert(
    fc.property(fc.array(fc.oneof(noise, nearly), { maxLength: 6 }), (pieces) => {
      try {
        framesOf(...pieces);
      } catch (error) {
        assert.equal(kindOf(error), 'invalid');
      }
    }),
    { numRuns: 500 },
  );
});
