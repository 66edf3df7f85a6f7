import { test } from 'node:test';
import { fileServer } from './file-server.ts';
import { propertyRuns } from '../property-runs.ts';
import { fuzzBriefly } from './target.ts';

const runs = propertyRuns(200);
const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (fileServer.whyNot ?? false);

test(`the file server lives on after what has been found before, and after ${runs} runs that have not`, { skip }, () =>
  fuzzBriefly(fileServer, runs),
);
