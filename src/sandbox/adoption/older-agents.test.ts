import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { protocolVersions } from '#wire/messages.ts';

/** The first version whose agents outlive their daemon: version 1 has no `list`, and its pods ended with the daemon. */
const firstAdopted = 2;
const repo = join(import.meta.dirname, '../../..');

/**
 * Tests that take over a pod whose agent is from before a change of the protocol, by the agent's version. Before
 * version N + 1 is added to `protocolVersions`:
 *
 * 1. Copy the agent's folders to `test/agents/N`: `src/agent`, `src/base`, `src/engine` and `src/wire`.
 * 2. Add a test like `test/vm/another-build.test.ts`, whose other build has these folders instead of the checkout's.
 *    Its pods start with that build, and the checkout's daemon takes them over.
 * 3. Name that test here.
 */
const keptAgents: ReadonlyMap<number, string> = new Map();

/** Returns the faults of the list of versions that the host speaks; empty if there are none. */
function unkept(versions: readonly number[], kept: ReadonlyMap<number, string>): readonly string[] {
  const newest = Math.max(...versions);
  const older = Array.from({ length: newest - firstAdopted }, (_, at) => firstAdopted + at).slice(-2);
  return older.flatMap((version) => [
    ...(versions.includes(version) ? [] : [`the host no longer speaks version ${version}`]),
    ...(kept.has(version) ? [] : [`no agent of version ${version} is kept and taken over by a test`]),
  ]);
}

test('each version of the protocol that pods may still speak has a kept agent, and a test that adopts it', async () => {
  assert.deepEqual(unkept(protocolVersions, keptAgents), []);
  for (const path of keptAgents.values()) await access(join(repo, path));
});

test('a new version is refused until an agent of the previous one is kept', () => {
  assert.deepEqual(unkept([2, 1], new Map()), []);
  assert.deepEqual(unkept([3, 2, 1], new Map()), ['no agent of version 2 is kept and taken over by a test']);
  const kept = new Map([[2, 'test/vm/older-agent.test.ts']]);
  assert.deepEqual(unkept([3, 2], kept), []);
  assert.deepEqual(unkept([3], kept), ['the host no longer speaks version 2']);
  assert.deepEqual(unkept([4, 3, 2], kept), ['no agent of version 3 is kept and taken over by a test']);
});
