import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { poll } from '#host/wait.ts';
import { tracesOf } from '../leaks.ts';
import { openCriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();

describe('podvm daemon with its default settings', { skip }, () => {
  it('keeps a machine waiting for the next pod, and more after a burst; none outlives it, whenever it ends', async () => {
    await using node = await openCriNode({ pool: 'auto' });
    const spares = () => [...node.log().matchAll(/info spare machine made sandbox=(\S+)/g)].map(([, id = '']) => id);
    const untilMade = async (count: number) => {
      const signal = AbortSignal.timeout(120_000);
      const made = await poll(async () => (spares().length >= count ? spares() : undefined), { everyMs: 100, signal });
      return made ?? assert.fail(`${spares().length} machines wait, of ${count}: ${node.log()}`);
    };
    const runPod = async (name: string) => {
      const metadata = { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 };
      const config = { metadata, logDirectory: join(node.cli.root, 'pod-logs', name) };
      const { podSandboxId } = await node.runtime.runPodSandbox({ config });
      node.ids.push(podSandboxId);
      return podSandboxId;
    };
    const [first] = await untilMade(1);
    assert.equal(await runPod('first'), first);
    await untilMade(2);
    const burst = await Promise.all(['one', 'two', 'three'].map(runPod));
    assert.ok(burst.includes(spares()[1] ?? ''));
    const taken = new Set([first, ...burst]);
    await untilMade(4);
    const waiting = spares().filter((id) => !taken.has(id));
    assert.ok(waiting.length >= 2, node.log());
    node.ids.push(...waiting);
    await node.end('SIGKILL');
    await node.start();
    for (const id of waiting) assert.match(node.log(), new RegExp(`swept a sandbox sandbox=${id}`));
    for (const podSandboxId of [first ?? '', ...burst]) await node.runtime.removePodSandbox({ podSandboxId });

    const isBeingMade = {
      recorded: () => true,
      started: async (id: string) => (await tracesOf({ ids: [id] })).some((trace) => trace.startsWith('process ')),
    };
    for (const [moment, hasCome] of Object.entries(isBeingMade)) {
      for (const how of ['SIGTERM', 'SIGKILL'] as const) {
        const look = async () => {
          const [id] = await readdir(join(node.cli.root, 'sandboxes'));
          return id !== undefined && (await hasCome(id)) ? id : undefined;
        };
        const id = (await poll(look, { everyMs: 5, signal: AbortSignal.timeout(60_000) })) ?? assert.fail(node.log());
        node.ids.push(id);
        await node.end(how);
        if (how === 'SIGKILL') await node.start(); // which ends what that one has left
        assert.deepEqual(await tracesOf({ ids: [id] }), [], `${how} when ${moment}`);
        if (how === 'SIGTERM') await node.start();
      }
    }
  });
});
