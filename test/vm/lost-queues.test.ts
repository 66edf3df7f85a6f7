import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import type { ConnectedPod } from '#network/network.ts';
import { whyNoVm } from './node.ts';

const podCount = Number(process.env['PODVM_QUEUE_PODS'] ?? 12);
const soon = () => AbortSignal.timeout(120_000);

describe('queues and filters in the netns of pods without traffic', { skip: await whyNoVm() }, () => {
  test('that were removed are all restored by one check', async (t) => {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp('/var/tmp/podvm-queues-');
    undo.defer(() => rm(directory, { recursive: true }));
    const stateDir = join(directory, 'network');
    undo.defer(() => removeDefaultNetwork(stateDir, soon()));
    const network = createHostNetwork({ stateDir, log: silentLog });
    const mark = directory.slice(-6).toLowerCase();
    const pods: ConnectedPod[] = [];
    for (let at = 0; at < podCount; at += 1) {
      const sandboxId = `q-${mark}-${at}`;
      const owner = { podName: 'pod', podNamespace: 'default', podUid: 'uid', hostPorts: [] };
      const request = { ...owner, sandboxId, mode: 'cni', tapOwnerUid: 64_999 } as const;
      const attachment = undo.use(await network.prepare(request, soon()));
      await attachment.connect(soon());
      const child = await startChild('nsenter', [`--net=${attachment.netns}`, 'sleep', '1000'], { stdio: 'ignore' });
      const ended = once(child, 'close');
      undo.defer(async () => {
        child.kill('SIGKILL');
        await ended;
      });
      pods.push({ sandboxId, pid: child.pid ?? assert.fail('no process') });
    }
    const tc = async (sandboxId: string, ...args: string[]) =>
      (await run('tc', ['-netns', `podvm-${sandboxId}`, ...args])).stdout;
    const listed = async () => {
      const texts = pods.map(async ({ sandboxId }) => {
        const ofEach = await Promise.all(
          ['eth0', 'tap0'].map((device) => tc(sandboxId, 'filter', 'show', 'dev', device, 'parent', 'ffff:')),
        );
        return ofEach.join('').replaceAll(/(index|id) \d+/g, '$1'); // numbers that the kernel counts up
      });
      return await Promise.all(texts);
    };
    const before = await listed();
    assert.ok(before.every((text) => text.includes(' direct-action ') && text.includes('Egress Redirect')));

    const remove = [
      ['qdisc', 'del', 'dev', 'tap0', 'ingress'],
      ['qdisc', 'del', 'dev', 'eth0', 'ingress'],
      ['filter', 'del', 'dev', 'tap0', 'parent', 'ffff:', 'pref', '1'],
    ];
    for (const [at, { sandboxId }] of pods.entries()) {
      if (at % 4 < remove.length) await tc(sandboxId, ...(remove[at % 4] ?? []));
    }
    const startMs = performance.now();
    assert.deepEqual([...(await network.mend(pods, soon()))], []);
    t.diagnostic(`${podCount} pods: put back after ${Math.round(performance.now() - startMs)} ms`);
    assert.deepEqual(await listed(), before);
  });
});
