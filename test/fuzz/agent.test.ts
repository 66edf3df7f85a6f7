import { test } from 'node:test';
import { agent } from './agent.ts';
import { propertyRuns } from '../property-runs.ts';
import { fuzzBriefly } from './target.ts';

const runs = propertyRuns(60);
const skip = process.env['PODVM_REQUIRE_VM'] === '1' ? false : (agent.whyNot ?? false);

test(`the agent lives on, and keeps to the protocol, whatever its host says ${runs} times over`, { skip }, () =>
  fuzzBriefly(agent, runs),
);
