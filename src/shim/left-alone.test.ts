import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from './schema/generated/types/task/task_pb.ts';
import { singleSpec } from './testing/bundles.ts';
import { openShim } from './testing/served-shim.ts';

const soon = { ms: 60_000 };
const verbs = Task.method;

/** Gives records of sandboxes, or of their containers, a version that only a newer podvm reads. Returns the undo. */
async function makeNewer(directory: string, name: 'sandbox.json' | 'container.json'): Promise<() => Promise<void>> {
  const root = join(directory, 'sandboxes');
  const files = (await readdir(root, { recursive: true })).filter((file) => file.endsWith(name));
  assert.ok(files.length > 0);
  const before = await Promise.all(files.map((file) => readFile(join(root, file), 'utf8')));
  const write = async (texts: readonly string[]) => {
    for (const [at, file] of files.entries()) await writeFile(join(root, file), texts[at] ?? '');
  };
  await write(before.map((text) => JSON.stringify({ ...(JSON.parse(text) as object), version: 9 })));
  return () => write(before);
}

for (const [what, isSingle] of [
  ['a container of a pod', false],
  ['a container without a pod', true],
] as const) {
  test(`${what} that is left alone ends with its machine when containerd ends it`, async () => {
    await using shim = await openShim();
    const { client } = shim;
    if (!isSingle) await shim.pod();
    await shim.container('box-1', isSingle ? singleSpec : undefined);
    await shim.end();
    await makeNewer(shim.directory, 'sandbox.json');
    await shim.next();
    assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.RUNNING);
    await assert.rejects(client.call(verbs.kill, { id: 'box-1', signal: 1 }, soon), { kind: 'failedPrecondition' });
    assert.ok(shim.parts.alive.has('machine'));
    await client.call(verbs.kill, { id: 'box-1', signal: 15 }, soon);
    assert.equal((await client.call(verbs.wait, { id: 'box-1' }, soon)).exitStatus, 137);
    assert.ok(!shim.parts.alive.has('machine'));
    for (const id of isSingle ? ['box-1'] : ['box-1', 'pod-1']) await client.call(verbs.delete, { id }, soon);
  });
}

test('tasks of a pod that is left alone stay on record, also those that this podvm cannot read', async () => {
  await using shim = await openShim();
  await shim.pod();
  await shim.container('box-1');
  await shim.end();
  const restore = [await makeNewer(shim.directory, 'sandbox.json'), await makeNewer(shim.directory, 'container.json')];
  await shim.next();
  assert.equal((await shim.client.call(verbs.state, { id: 'pod-1' }, soon)).status, Status.RUNNING);
  await shim.end();
  for (const each of restore) await each();
  await shim.next();
  assert.equal((await shim.client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.RUNNING);
});
