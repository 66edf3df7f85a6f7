import fc from 'fast-check';

/** As `fc.string({ unit: 'binary' })`, whose first use takes a second to build its table; also half surrogate pairs. */
export const anyUnicode = (constraints?: fc.ArrayConstraints): fc.Arbitrary<string> =>
  fc.array(fc.nat({ max: 0x10ffff }), constraints).map((points) => String.fromCodePoint(...points));
