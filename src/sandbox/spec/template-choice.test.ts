import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import type { MachineShape } from '#vm/driver.ts';
import { sandboxSpec } from '../testing/examples.ts';
import { createFakeParts } from '../testing/fake-parts.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { openSandboxes } from '../sandboxes.ts';
import { stricterOf, type TemplateChoice } from './template-choice.ts';

const never = new AbortController().signal;

/** A node without a template; reports what was made, and how each machine began. */
async function openNode(template?: TemplateChoice) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-choice-'));
  const parts = createFakeParts(directory);
  const made: (string | undefined)[] = [];
  const began: (string | undefined)[] = [];
  const tenantOf = ({ tenant }: Pick<MachineShape, 'tenant'>) => tenant ?? 'the node';
  const { driver } = parts;
  const start = driver.start.bind(driver);
  driver.hasTemplate = async (shape) => made.includes(tenantOf(shape));
  driver.makeTemplate = async (spec) => void made.push(tenantOf(spec));
  driver.start = (spec, signal) => {
    began.push(spec.from === 'boot' ? 'a boot' : tenantOf(spec));
    return start(spec, signal);
  };
  const sandboxes = await openSandboxes(
    { directory, parts, log: silentLog, ...(template === undefined ? {} : { template }) },
    never,
  );
  return {
    made,
    began,
    sandboxes,
    run: (namespace: string, name: string, choice: SandboxSpec['template']) =>
      sandboxes.run({ ...sandboxSpec, namespace, name, template: choice }, never),
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      assert.deepEqual([...parts.alive], []);
      await rm(directory, { recursive: true });
    },
  };
}

test('stricterOf() returns the choice that shares less', () => {
  assert.equal(stricterOf('on', 'namespace'), 'namespace');
  assert.equal(stricterOf('off', 'namespace'), 'off');
  assert.equal(stricterOf('on', 'on'), 'on');
});

test('run() restores a pod from the template it asks for, which is made once per namespace', async () => {
  await using node = await openNode();
  await node.run('shop', 'a', 'namespace');
  await node.run('bank', 'a', 'namespace');
  await node.run('shop', 'b', 'namespace');
  await node.run('shop', 'c', 'on');
  await node.run('shop', 'd', 'off');
  assert.deepEqual(node.began, ['shop', 'bank', 'shop', 'the node', 'a boot']);
  assert.deepEqual(node.made, ['shop', 'bank', 'the node']);
});

test('run() never lets a pod share more than its node allows', async () => {
  await using node = await openNode('namespace');
  await node.sandboxes.warmUp('template', never);
  assert.deepEqual(node.made, [], "no pod would use the node's");
  for (const choice of ['on', 'namespace', 'off'] as const) await node.run('shop', choice, choice);
  assert.deepEqual(node.began, ['shop', 'shop', 'a boot']);
  await using strict = await openNode('off');
  for (const choice of ['on', 'namespace', 'off'] as const) await strict.run('shop', choice, choice);
  assert.deepEqual([strict.began, strict.made], [['a boot', 'a boot', 'a boot'], []]);
});

test('run() boots without a template for a while after making one failed, and then tries again', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-choice-'));
  const parts = createFakeParts(directory);
  const tried: string[] = [];
  let [laterNs, isFull] = [0n, true];
  parts.driver.hasTemplate = async () => tried.at(-1) === 'made';
  parts.driver.makeTemplate = async () => {
    tried.push(isFull ? 'failed' : 'made');
    if (isFull) throw new PodvmError('exhausted', 'full');
  };
  const surroundings = {
    nowMs: () => Date.now(),
    monotonicNs: () => process.hrtime.bigint() + laterNs,
    randomBytes,
    availableBytes: () => Promise.resolve(Number.MAX_SAFE_INTEGER),
    idleMs: () => Promise.resolve(0),
    hasDescriptors: () => true,
  };
  {
    await using sandboxes = await openSandboxes({ directory, parts, log: silentLog, surroundings }, never);
    for (const [name, laterMs] of [
      ['a', 0],
      ['b', 30_000],
      ['c', 60_000],
      ['d', 0],
    ] as const) {
      laterNs += BigInt(laterMs) * 1_000_000n;
      isFull = name < 'c';
      await sandboxes.run({ ...sandboxSpec, name }, never);
    }
  }
  assert.deepEqual(tried, ['failed', 'made']);
  await rm(directory, { recursive: true });
});
