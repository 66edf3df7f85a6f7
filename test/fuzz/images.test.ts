import { test } from 'node:test';
import { fuzzBriefly } from './target.ts';
import { imageImport } from './images.ts';

const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (imageImport.whyNot ?? false);

test('an image that lies is refused, or made into a file system within its bounds, 4 times over', { skip }, () =>
  fuzzBriefly(imageImport, 4),
);
