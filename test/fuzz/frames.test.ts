import { test } from 'node:test';
import { layer2 } from './frames.ts';
import { propertyRuns } from '../property-runs.ts';
import { fuzzBriefly } from './target.ts';

const runs = propertyRuns(300);
const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (layer2.whyNot ?? false);

test(`nothing comes to a pod of what another says in ${runs} runs of frames, but what may`, { skip }, () =>
  fuzzBriefly(layer2, runs),
);
