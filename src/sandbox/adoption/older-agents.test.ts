import assert from 'node:assert/strict';
import { test } from 'node:test';
import { protocolVersions } from '#wire/messages.ts';

/** The first version whose agents outlive their daemon: version 1 has no `list`, and its pods ended with the daemon. */
const firstAdopted = 2;

/** Tests that take over a pod whose agent was kept from before a change of the protocol, by the agent's version. */
const keptAgents: ReadonlyMap<number, string> = new Map();

test('a version of the protocol that pods may still speak has an agent kept from it, and a test that adopts one', () => {
  const newest = protocolVersions[0];
  const older = Array.from({ length: newest - firstAdopted }, (_, at) => firstAdopted + at).slice(-2);
  for (const version of older) {
    assert.ok(
      protocolVersions.some((each) => each === version),
      `the host no longer speaks version ${version}`,
    );
    assert.ok(
      keptAgents.has(version),
      `Before version ${newest} is added, keep the agent of version ${version} and add a test as another-build.test.ts`,
    );
  }
});
