import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  decodeCredit,
  encodeCredit,
  encodeFrame,
  FrameParser,
  frameKinds,
  headerBytes,
  type Decision,
  type FrameHeader,
  type FrameKind,
} from './frame.ts';
import { limits } from './limits.ts';

interface Seen {
  readonly kind: FrameKind;
  readonly stream: number;
  readonly payload: string;
}

/** The frames that a parser finds in bytes given in these portions; joins the pieces of a data frame again. */
function parse(portions: readonly Uint8Array[], decide: (header: FrameHeader) => Decision = () => 'take') {
  const seen: Seen[] = [];
  let open: { header: FrameHeader; bytes: Uint8Array[]; length: number } | undefined;
  const parser = new FrameParser({
    decide,
    frame(header, payload) {
      assert.ok(payload.length <= header.length);
      if (open?.header !== header) open = { header, bytes: [], length: 0 };
      open.bytes.push(payload.slice());
      open.length += payload.length;
      if (open.length < header.length) return;
      seen.push({
        kind: header.kind,
        stream: header.stream,
        payload: Buffer.concat(open.bytes).toString('hex'),
      });
      open = undefined;
    },
  });
  for (const portion of portions) parser.push(portion);
  return { seen, parser };
}

const kindsWithPayload = [frameKinds.hello, frameKinds.message, frameKinds.data] as const;
const frames = fc.array(
  fc.record({
    kind: fc.constantFrom(...kindsWithPayload),
    stream: fc.nat(0x7fff_ffff),
    payload: fc.uint8Array({ maxLength: 200 }),
  }),
  { maxLength: 8 },
);
const concat = (parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

describe('FrameParser', () => {
  it('never throws for any bytes in any portions, and keeps only the start of a header', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 10 }), (portions) => {
        const { seen, parser } = parse(portions);
        const bytes = portions.reduce((sum, { length }) => sum + length, 0);
        assert.deepEqual(seen, []);
        assert.ok(parser.garbageBytes <= bytes && bytes - parser.garbageBytes < headerBytes);
      }),
    );
  });

  it('never throws on frames with bytes changed at random', () => {
    const damage = fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { maxLength: 20 });
    fc.assert(
      fc.property(frames, damage, (list, changes) => {
        const bytes = concat(list.map(({ kind, stream, payload }) => encodeFrame(7, stream, kind, payload)));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        parse([bytes]);
      }),
    );
  });

  it('returns the same frames for any splitting of the bytes', () => {
    fc.assert(
      fc.property(frames, (list) => {
        const bytes = concat(list.map(({ kind, stream, payload }) => encodeFrame(7, stream, kind, payload)));
        const whole = parse([bytes]).seen;
        assert.equal(whole.length, list.length);
        for (let cut = 0; cut <= bytes.length; cut += 1) {
          assert.deepEqual(parse([bytes.subarray(0, cut), bytes.subarray(cut)]).seen, whole);
        }
        const single = [...bytes].map((byte) => Uint8Array.of(byte));
        assert.deepEqual(parse(single).seen, whole);
      }),
      { numRuns: 20 },
    );
  });

  it('finds every frame after garbage without a valid header', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), frames, (garbage, list) => {
        const good = list.map(({ kind, stream, payload }) => encodeFrame(7, stream, kind, payload));
        assert.deepEqual(parse([concat([garbage, ...good])]).seen, parse(good).seen);
      }),
    );
  });

  it('resynchronises after a truncated frame once as many bytes have arrived', () => {
    const torn = encodeFrame(7, 3, frameKinds.data, new Uint8Array(500)).subarray(0, 200);
    const hello = encodeFrame(8, 0, frameKinds.hello, Buffer.from('{}'));
    const { seen } = parse([torn, new Uint8Array(500), hello]);
    assert.deepEqual(seen.at(-1), { kind: frameKinds.hello, stream: 0, payload: '7b7d' });
  });

  it('drops an incomplete frame at reset()', () => {
    const { seen, parser } = parse([encodeFrame(7, 3, frameKinds.message, new Uint8Array(500)).subarray(0, 200)]);
    parser.reset();
    parser.push(encodeFrame(7, 0, frameKinds.message, Buffer.from('x')));
    assert.deepEqual(seen, [{ kind: frameKinds.message, stream: 0, payload: '78' }]);
  });

  it('rejects headers with one bit changed', () => {
    const header = encodeFrame(7, 3, frameKinds.end);
    for (let bit = 0; bit < headerBytes * 8; bit += 1) {
      const damaged = header.slice();
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.deepEqual(parse([damaged]).seen, [], `bit ${bit}`);
    }
  });

  it('accepts a payload at the limit, and rejects a header above it', () => {
    for (const [kind, max] of [
      [frameKinds.message, limits.maxMessageBytes],
      [frameKinds.hello, limits.maxMessageBytes],
      [frameKinds.data, limits.maxDataBytes],
    ] as const) {
      assert.equal(parse([encodeFrame(7, 1, kind, new Uint8Array(max))]).seen.length, 1);
      assert.deepEqual(parse([encodeFrame(7, 1, kind, new Uint8Array(max + 1))]).seen, []);
    }
    for (const kind of [frameKinds.end, frameKinds.reset, frameKinds.credit]) {
      assert.deepEqual(parse([encodeFrame(7, 1, kind, new Uint8Array(5))]).seen, []);
    }
  });

  it('drops the payload of a skipped frame, and searches that of a rejected one', () => {
    const inner = encodeFrame(7, 5, frameKinds.end);
    const outer = encodeFrame(6, 1, frameKinds.data, inner);
    const other = (decision: Decision) => (header: FrameHeader) => (header.epoch === 7 ? 'take' : decision);
    assert.deepEqual(parse([outer], other('skip')).seen, []);
    assert.deepEqual(parse([outer], other('reject')).seen, [{ kind: frameKinds.end, stream: 5, payload: '' }]);
  });
});

describe('encodeCredit()', () => {
  it('is read by decodeCredit()', () => {
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), (bytes) => {
        assert.equal(decodeCredit(encodeCredit(7, 1, bytes).subarray(headerBytes)), bytes);
      }),
    );
  });
});
