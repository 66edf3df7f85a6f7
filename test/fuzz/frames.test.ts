import { test } from 'node:test';
import { layer2 } from './frames.ts';
import { fuzzBriefly } from './target.ts';

const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (layer2.whyNot ?? false);

test('nothing comes to a pod of what another says in 300 runs of frames, but what may', { skip }, () =>
  fuzzBriefly(layer2, 300),
);
