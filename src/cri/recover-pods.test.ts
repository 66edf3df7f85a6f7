import assert from 'node:assert/strict';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { ContainerState, PodSandboxState } from './schema/api_pb.ts';
import { containerConfig, type FakeNode, openFakeNode, podConfig } from './testing/fake-node.ts';
import { is } from './testing/grpc-client.ts';

const becomes = async (look: () => Promise<ContainerState | undefined>, wanted: ContainerState) => {
  for (const deadline = Date.now() + 60_000; ;) {
    const state = await look();
    if (state === wanted) return;
    assert.ok(Date.now() < deadline, `in state ${state}`);
  }
};

test('the next daemon reports pods and containers as the previous one did', async () => {
  await using node = await openFakeNode();
  const resources = { memoryLimitInBytes: 2n ** 26n };
  const env = [{ key: 'TOKEN', value: Buffer.from('hidden') }];
  const config = { ...containerConfig, envs: env, args: ['hidden'], linux: { resources }, annotations: { b: 'c' } };
  const { podSandboxId, containerId } = await node.running(podConfig, config);
  const before = {
    pods: await node.runtime.listPodSandbox(),
    pod: (await node.runtime.podSandboxStatus({ podSandboxId })).status,
    containers: await node.runtime.listContainers(),
    container: (await node.runtime.containerStatus({ containerId })).status,
  };
  await node.restart(() => Promise.resolve());
  assert.deepEqual(await node.runtime.listPodSandbox(), before.pods);
  assert.deepEqual((await node.runtime.podSandboxStatus({ podSandboxId })).status, before.pod);
  assert.deepEqual(await node.runtime.listContainers(), before.containers);
  assert.deepEqual((await node.runtime.containerStatus({ containerId })).status, before.container);
  assert.equal((await node.runtime.runPodSandbox({ config: podConfig })).podSandboxId, podSandboxId);
  const [record = ''] = await readdir(join(node.directory, 'cri/pods'));
  assert.doesNotMatch(await readFile(join(node.directory, 'cri/pods', record), 'utf8'), /hidden|aGlkZGVu/);
});

test('an exit that happened while no daemon ran is reported by the next one', async () => {
  await using node = await openFakeNode();
  const { podSandboxId, containerId } = await node.running();
  await node.restart(async () => node.exit(containerId, 42));
  const look = async () => (await node.runtime.containerStatus({ containerId })).status;
  await becomes(async () => (await look())?.state, ContainerState.CONTAINER_EXITED);
  assert.equal((await look())?.exitCode, 42);
  await node.runtime.removeContainer({ containerId });
  await node.restart(() => Promise.resolve());
  assert.deepEqual((await node.runtime.listContainers()).containers, []);
  await node.runtime.stopPodSandbox({ podSandboxId });
  await node.restart(() => Promise.resolve());
  const { items } = await node.runtime.listPodSandbox();
  assert.deepEqual(
    items.map(({ id, state }) => ({ id, state })),
    [{ id: podSandboxId, state: PodSandboxState.SANDBOX_NOTREADY }],
  );
  await node.runtime.removePodSandbox({ podSandboxId });
  assert.deepEqual(await readdir(join(node.directory, 'cri/pods')), []);
});

test('a sandbox that no client knows is removed by the next daemon', async () => {
  await using node = await openFakeNode();
  const { podSandboxId } = await node.running();
  await node.restart(async () => {
    await rm(join(node.directory, 'cri/pods', `${podSandboxId}.json`));
  });
  assert.deepEqual((await node.runtime.listPodSandbox()).items, []);
  await assert.rejects(node.runtime.podSandboxStatus({ podSandboxId }), is(status.NOT_FOUND));
  assert.equal(node.parts.alive.has('machine'), false);
});

test('a container that no client knows is removed by the next daemon, and can be made again', async () => {
  await using node = await openFakeNode();
  const { podSandboxId, containerId } = await node.running();
  await node.restart(async () => {
    const path = join(node.directory, 'cri/pods', `${podSandboxId}.json`);
    const record = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...record, containers: [] }));
    node.parts.guest.answers.set('signalContainer', () => node.exit(containerId, 137));
  });
  assert.deepEqual((await node.runtime.listContainers()).containers, []);
  const again = await node.runtime.createContainer({ podSandboxId, config: containerConfig, sandboxConfig: podConfig });
  assert.notEqual(again.containerId, containerId);
});

const recordsOf = ({ directory }: FakeNode, podSandboxId: string) => ({
  sandbox: join(directory, 'sandboxes', podSandboxId, 'sandbox.json'),
  pod: join(directory, 'cri/pods', `${podSandboxId}.json`),
});

/** Makes records ones of a newer podvm. */
async function makeNewer(...paths: readonly string[]) {
  for (const path of paths) {
    const record = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...record, version: 9 }));
  }
}

test('a pod that the next daemon must leave alone stays ready, so that its kubelet starts no second one', async () => {
  await using node = await openFakeNode();
  const { podSandboxId, containerId } = await node.running();
  const records = recordsOf(node, podSandboxId);
  const known = await readFile(records.pod, 'utf8');
  const before = {
    pods: await node.runtime.listPodSandbox(),
    containers: await node.runtime.listContainers(),
    pod: (await node.runtime.podSandboxStatus({ podSandboxId })).status,
  };
  await node.restart(() => makeNewer(records.sandbox));
  assert.deepEqual(await node.runtime.listPodSandbox(), before.pods);
  assert.deepEqual(await node.runtime.listContainers(), before.containers);
  const { status: now, info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
  assert.deepEqual(now, before.pod);
  assert.match(info['info'] ?? '', /"leftAlone":"Cannot take over default\/web: a newer podvm has written its record/);
  assert.equal((await node.runtime.runPodSandbox({ config: podConfig })).podSandboxId, podSandboxId);
  await assert.rejects(
    node.runtime.execSync({ containerId, cmd: ['true'] }),
    /Cannot run a command: Cannot take over default\/web: a newer podvm has written its record/,
  );
  assert.deepEqual((await node.runtime.listPodSandboxStats({})).stats, []);
  assert.equal(await readFile(records.pod, 'utf8'), known);

  await node.runtime.stopContainer({ containerId, timeout: 30n });
  assert.equal(node.parts.alive.has('machine'), false);
  const { status: container } = await node.runtime.containerStatus({ containerId });
  assert.deepEqual([container?.state, container?.exitCode], [ContainerState.CONTAINER_EXITED, 137]);
  await node.runtime.stopPodSandbox({ podSandboxId });
  const { status: ended } = await node.runtime.podSandboxStatus({ podSandboxId });
  assert.equal(ended?.state, PodSandboxState.SANDBOX_NOTREADY);
  await node.runtime.removePodSandbox({ podSandboxId });
  assert.deepEqual((await node.runtime.listPodSandbox()).items, []);
  assert.deepEqual(await readdir(join(node.directory, 'cri/pods')), []);
});

test('a pod whose records are both of a newer daemon is listed by the names of its sandbox, and can be ended', async () => {
  await using node = await openFakeNode();
  const { podSandboxId } = await node.running();
  const records = recordsOf(node, podSandboxId);
  await node.restart(() => makeNewer(records.sandbox, records.pod));
  const written = await readFile(records.pod, 'utf8');
  const { items } = await node.runtime.listPodSandbox();
  const [item] = items;
  assert.deepEqual([items.length, item?.id, item?.state], [1, podSandboxId, PodSandboxState.SANDBOX_READY]);
  assert.deepEqual([item?.labels, item?.annotations], [podConfig.labels, podConfig.annotations]);
  const { name, namespace, uid, attempt } = item?.metadata ?? assert.fail('no name');
  assert.deepEqual({ name, namespace, uid, attempt }, podConfig.metadata);
  assert.equal(await readFile(records.pod, 'utf8'), written);
  await node.runtime.stopPodSandbox({ podSandboxId });
  await node.runtime.removePodSandbox({ podSandboxId });
  assert.equal(node.parts.alive.has('machine'), false);
});
