import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodSandboxState } from '#cri/schema/api_pb.ts';
import { openCriNode, startPod } from './cri-node.ts';
import { whyNoVm } from './node.ts';

describe('a daemon that has taken over pods and then cannot serve', { skip: await whyNoVm() }, () => {
  it('ends with its error, and the next one takes the pods over', async () => {
    await using node = await openCriNode();
    const { podSandboxId, containerId } = await startPod(node, 'stays', 'while :; do sleep 1; done');
    await node.end('SIGTERM');

    await using other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    assert.ok(address !== null && typeof address === 'object');
    const file = join(node.cli.root, 'taken.yaml');
    await writeFile(file, `metricsAddress: 127.0.0.1:${address.port}\n`);
    const failing = node.cli.start(['daemon', '--config', file]);
    await failing.shows(/sandbox taken over/, 300_000);
    const ended = await Promise.race([failing.ended, delay(120_000, undefined, { ref: false })]);
    if (ended === undefined) failing.child.kill('SIGKILL');
    assert.equal(ended?.code, 125, failing.stderr());
    assert.match(failing.stderr(), /Cannot serve metrics on 127\.0\.0\.1 port \d+: listen EADDRINUSE/);

    await node.start();
    const { status } = await node.runtime.podSandboxStatus({ podSandboxId });
    assert.equal(status?.state, PodSandboxState.SANDBOX_READY);
    const { stdout } = await node.runtime.execSync({ containerId, cmd: ['echo', 'here'], timeout: 60n });
    assert.equal(Buffer.from(stdout).toString(), 'here\n');
  });
});
