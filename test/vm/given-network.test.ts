import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { isThere } from '#host/file/files.ts';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { netnsPath } from '#network/netns.ts';
import { whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(60_000);

await suite('a netns that another program has connected', { skip: await whyNoVm() }, () => {
  const netns = `given-${process.pid}`;
  const sandboxId = `given-test-${process.pid}`;
  const request = {
    sandboxId,
    podName: 'pod',
    podNamespace: 'default',
    podUid: 'u',
    hostPorts: [],
    tapOwnerUid: 65_533,
    mode: 'given',
    netns: `/run/netns/${netns}`,
  } as const;
  let directory: string;
  const open = () => createHostNetwork({ stateDir: directory, log: silentLog });
  const inside = async (...command: readonly string[]) => (await run('ip', ['-netns', netns, ...command])).stdout;

  beforeEach(async () => {
    directory = await mkdtemp('/var/tmp/podvm-given-');
    await run('ip', ['netns', 'add', netns]);
    await inside('link', 'set', 'lo', 'up');
  });
  afterEach(async () => {
    await run('ip', ['netns', 'delete', netns]);
    await removeDefaultNetwork(directory, soon()); // made for attachments that were connected ahead
    await rm(directory, { recursive: true });
  });
  const connectAs = async (name: string) => {
    await inside('link', 'add', 'far', 'type', 'veth', 'peer', 'name', name);
    for (const link of ['far', name]) await inside('link', 'set', link, 'up');
    await inside('address', 'add', '10.99.0.2/24', 'dev', name);
    await inside('route', 'add', 'default', 'via', '10.99.0.1');
  };

  test('connect() gives the guest its addresses, and dispose restores the namespace', async () => {
    await connectAs('eth0');
    const before = await inside('-brief', 'link', 'show');
    const network = open();
    const attachment = await network.prepare(request, soon());
    const guest = await attachment.connect(soon());
    assert.deepEqual(guest.interfaces[0]?.addresses, ['10.99.0.2/24']);
    assert.deepEqual(guest.routes, [{ destination: '0.0.0.0/0', gateway: '10.99.0.1' }]);
    assert.match(await inside('-brief', 'link', 'show'), /^tap0 /m);
    const filters = await run('tc', ['-netns', netns, 'filter', 'show', 'dev', 'tap0', 'parent', 'ffff:']);
    assert.match(filters.stdout, / direct-action /, 'loopback addresses are dropped');
    assert.equal(attachment.netns, netnsPath(sandboxId));
    await attachment[Symbol.asyncDispose]();
    assert.equal(await inside('-brief', 'link', 'show'), before);
    assert.equal(
      (await run('tc', ['-netns', netns, 'qdisc', 'show', 'dev', 'eth0'])).stdout.includes('ingress'),
      false,
    );
    assert.equal(await isThere(netnsPath(sandboxId)), false);
  });

  test('a tap made ahead moves into it, and dispose restores it', async () => {
    await connectAs('eth0');
    const before = await inside('-brief', 'link', 'show');
    const network = open();
    const { netns: path, ...owner } = request;
    const attachment = await network.prepare({ ...owner, mode: 'cni' }, soon());
    attachment.assign({ ...owner, netns: path });
    const guest = await attachment.connect(soon());
    assert.deepEqual(guest.interfaces[0]?.addresses, ['10.99.0.2/24']);
    assert.match(await inside('-brief', 'link', 'show'), /^tap0 +(?:UP|DOWN|UNKNOWN)/m);
    await attachment[Symbol.asyncDispose]();
    assert.equal(await inside('-brief', 'link', 'show'), before);
    assert.equal(await isThere(netnsPath(sandboxId)), false);
  });

  test('collect() leaves it to its maker after a crash', async () => {
    await connectAs('eth0');
    await (await open().prepare(request, soon())).connect(soon());
    assert.deepEqual(await open().collect(new Set(), soon()), [sandboxId]);
    assert.doesNotMatch(await inside('-brief', 'link', 'show'), /tap0/);
    assert.equal(await isThere(netnsPath(sandboxId)), false);
  });

  test('prepare() and connect() refuse paths that are not a netns', async () => {
    const network = open();
    await assert.rejects(network.prepare({ ...request, netns: 'relative' }, soon()), { kind: 'invalid' });
    const missing = { ...request, netns: join(directory, 'missing') };
    await assert.rejects(network.prepare(missing, soon()), { kind: 'failedPrecondition' });
    await connectAs('net1');
    const attachment = await network.prepare(request, soon());
    await assert.rejects(attachment.connect(soon()), { kind: 'failedPrecondition', message: /no usable eth0/ });
    await attachment[Symbol.asyncDispose]();
    assert.equal(await isThere(netnsPath(sandboxId)), false);
  });
});
