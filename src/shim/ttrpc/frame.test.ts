import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { encodeFrame, FrameReader, frameTypes, headerBytes, maxPayloadBytes } from './frame.ts';

const anyFrame = fc.record(
  {
    streamId: fc.integer({ min: 0, max: 0xffff_ffff }),
    type: fc.integer({ min: 0, max: 255 }),
    payload: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  },
  { noNullPrototype: true },
);

test('FrameReader reads what encodeFrame() wrote, for any splitting of its bytes', () => {
  fc.assert(
    fc.property(fc.array(anyFrame), fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1 }), (frames, sizes) => {
      const bytes = Buffer.concat(frames.map(encodeFrame));
      const reader = new FrameReader();
      const found = [];
      for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
        const size = sizes[turn % sizes.length] ?? 1;
        found.push(...reader.read(bytes.subarray(at, at + size)));
        at += size;
      }
      assert.deepEqual(found, frames);
    }),
  );
});

test('FrameReader accepts or refuses any bytes without other errors', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), (chunks) => {
      const reader = new FrameReader();
      try {
        for (const chunk of chunks) reader.read(Buffer.from(chunk));
      } catch (error) {
        assert.ok(error instanceof PodvmError && error.kind === 'corrupt');
      }
    }),
  );
});

test('FrameReader accepts a frame at the limit, and refuses a longer one by its header', () => {
  const frame = { streamId: 1, type: frameTypes.request, payload: Buffer.alloc(maxPayloadBytes) };
  const bytes = encodeFrame(frame);
  assert.equal(new FrameReader().read(bytes)[0]?.payload.length, maxPayloadBytes);
  const header = bytes.subarray(0, headerBytes);
  header.writeUInt32BE(maxPayloadBytes + 1);
  assert.throws(() => new FrameReader().read(header), { kind: 'corrupt' });
  assert.throws(() => encodeFrame({ ...frame, payload: Buffer.alloc(maxPayloadBytes + 1) }), { kind: 'exhausted' });
});
