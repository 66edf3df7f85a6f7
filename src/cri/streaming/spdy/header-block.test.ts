import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { headerDictionary, headerDictionaryId } from './dictionary.ts';
import { headerText, HeaderUnzip, HeaderZip, numbers } from './frame-encoder.ts';
import { HeaderDeflater, HeaderInflater } from './header-block.ts';
import { spdyLimits } from './limits.ts';

test("the dictionary is the draft's: 1,423 bytes of the known sums", () => {
  let a = 1;
  let b = 0;
  for (const byte of headerDictionary) {
    a = (a + byte) % 65_521;
    b = (b + a) % 65_521;
  }
  assert.equal(b * 0x1_0000 + a, headerDictionaryId);
  assert.equal(headerDictionary.length, 1423);
  assert.equal(crc32(headerDictionary), 0x04_c8_49_0e);
});

const refusals: readonly (readonly [string, Buffer])[] = [
  ['a count larger than the headers', numbers(3)],
  [
    'more headers than allowed',
    headerText(Object.fromEntries(Array.from({ length: spdyLimits.headers + 1 }, (_, at) => [`h${at}`, '']))),
  ],
  ['a name that is longer than the block', Buffer.concat([numbers(1, 0xffff_fff0), Buffer.from('a')])],
  ['a value that is missing', Buffer.concat([numbers(1, 1), Buffer.from('a')])],
  ['a header without a name', headerText({ '': 'x' })],
  ['a name in capitals', headerText({ Port: '80' })],
  [
    'one name twice',
    Buffer.concat([numbers(2), headerText({ a: 'b' }).subarray(4), headerText({ a: 'c' }).subarray(4)]),
  ],
  ['bytes after the last header', Buffer.concat([headerText({ a: 'b' }), Buffer.from('x')])],
  ['less than a count', Buffer.from('ab')],
];

for (const [what, text] of refusals) {
  test(`inflate() refuses ${what}`, async () => {
    const block = await new HeaderZip().zip(text);
    assert.throws(() => new HeaderInflater().inflate(block), { kind: 'invalid' });
  });
}

test('inflate() refuses a block that exceeds the limit, without allocating it', async () => {
  const bomb = await new HeaderZip().zip(Buffer.alloc(64 * 1024 * 1024));
  assert.ok(bomb.length < 128 * 1024);
  const before = process.memoryUsage().arrayBuffers;
  assert.throws(() => new HeaderInflater().inflate(bomb), { kind: 'invalid' });
  assert.ok(process.memoryUsage().arrayBuffers - before < 4 * 1024 * 1024);
});

test('inflate() reads what zlib makes of any headers, block after block, beyond the window of 32 KiB', async () => {
  const headers = fc.dictionary(fc.stringMatching(/^[a-z]{1,12}$/), fc.stringMatching(/^[ -~]{0,3000}$/), {
    maxKeys: 6,
    noNullPrototype: true,
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(headers, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 0, max: 9 }),
      async (blocks, level) => {
        const zip = new HeaderZip(level);
        const inflater = new HeaderInflater();
        for (const block of blocks) {
          const read = inflater.inflate(await zip.zip(headerText(block)));
          assert.deepEqual(Object.fromEntries(read), { ...block });
        }
      },
    ),
    { numRuns: 40 },
  );
});

test('deflate() makes blocks that zlib reads as one stream', async () => {
  const deflater = new HeaderDeflater();
  const unzip = new HeaderUnzip();
  for (const headers of [{}, { port: '80', requestid: '1' }, {}, { streamtype: 'error' }]) {
    const text = await unzip.unzip(deflater.deflate(new Map(Object.entries(headers))));
    assert.deepEqual(text, headerText(headers));
  }
});
