import { test } from 'node:test';
import { agent } from './agent.ts';
import { fuzzBriefly } from './target.ts';

const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (agent.whyNot ?? false);

test('the agent lives on, and keeps to the protocol, whatever its host says 60 times over', { skip }, () =>
  fuzzBriefly(agent, 60),
);
