import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { divideQuantity, millisOf, parseQuantity, unitsOf } from './quantity.ts';

const units = (text: string) => {
  const quantity = parseQuantity(text);
  return quantity === undefined ? undefined : unitsOf(quantity);
};

test('parseQuantity() refuses text that is not a quantity', () => {
  for (const text of [
    '',
    ' ',
    '1 ',
    'm',
    '.',
    '1.2.3',
    '1KiB',
    '1K',
    '1mi',
    '0x10',
    '1e',
    '1e3Mi',
    '1e999',
    'NaN',
    '--1',
  ]) {
    assert.equal(parseQuantity(text), undefined, text);
  }
  assert.equal(parseQuantity('1'.repeat(65)), undefined);
});

test('parseQuantity() reads all suffixes and exponents exactly', () => {
  const cases: readonly (readonly [string, number])[] = [
    ['0', 0],
    ['1Ki', 1024],
    ['1.5Gi', 1_610_612_736],
    ['64Mi', 67_108_864],
    ['1e3', 1000],
    ['1E3', 1000],
    ['1E', 10 ** 18 > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : 0],
    ['12e-1', 2],
    ['100m', 1],
    ['.5', 1],
    ['5.', 5],
    ['129M', 129_000_000],
  ];
  for (const [text, expected] of cases) assert.equal(units(text), expected, text);
  assert.equal(millisOf(parseQuantity('100m') ?? { nano: 0n }), 100);
  assert.equal(millisOf(parseQuantity('0.0001') ?? { nano: 0n }), 1);
  assert.equal(millisOf(parseQuantity('2') ?? { nano: 0n }), 2000);
});

test('parseQuantity() returns the same for one value in any unit', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1_000_000 }), (value) => {
      const nano = parseQuantity(`${value}`)?.nano;
      assert.equal(parseQuantity(`${value * 1000}m`)?.nano, nano);
      assert.equal(parseQuantity(`${value}e0`)?.nano, nano);
      assert.equal(parseQuantity(`${value}000e-3`)?.nano, nano);
      assert.equal(parseQuantity(`${value}Ki`)?.nano, (nano ?? 0n) * 1024n);
      assert.equal(parseQuantity(`${value}k`)?.nano, (nano ?? 0n) * 1000n);
    }),
  );
});

test('divideQuantity() rounds up, as the downward API does', () => {
  const divide = (a: string, b: string) =>
    divideQuantity(parseQuantity(a) ?? { nano: 0n }, parseQuantity(b) ?? { nano: 1n });
  assert.equal(divide('1500m', '1'), 2n);
  assert.equal(divide('1500m', '1m'), 1500n);
  assert.equal(divide('64Mi', '1Mi'), 64n);
  assert.equal(divide('65Mi', '1Gi'), 1n);
});

test('parseQuantity() never throws', () => {
  fc.assert(fc.property(fc.string(), (text) => void parseQuantity(text)));
});
