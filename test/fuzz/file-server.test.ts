import { test } from 'node:test';
import { fileServer } from './file-server.ts';
import { fuzzBriefly } from './target.ts';

const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (fileServer.whyNot ?? false);

test('the file server lives on after what has been found before, and after 200 runs that have not', { skip }, () =>
  fuzzBriefly(fileServer, 200),
);
