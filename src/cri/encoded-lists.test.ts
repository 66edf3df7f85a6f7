import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ContainerState, PodSandboxState } from './schema/api_pb.ts';
import { containerConfig, openFakeNode, podConfig } from './testing/fake-node.ts';

const podNamed = (name: string) => ({ ...podConfig, metadata: { ...podConfig.metadata, name, uid: name } });

test('lists show each state that an item has had since the last one, and items that have come or gone', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const pods = async () => (await runtime.listPodSandbox()).items.map(({ id, state }) => [id, state]);
  const containers = async () => (await runtime.listContainers()).containers.map(({ id, state }) => [id, state]);
  const [ready, gone] = [PodSandboxState.SANDBOX_READY, PodSandboxState.SANDBOX_NOTREADY];

  const { podSandboxId: first } = await runtime.runPodSandbox({ config: podNamed('first') });
  assert.deepEqual(await pods(), [[first, ready]]);
  const { podSandboxId: second } = await runtime.runPodSandbox({ config: podNamed('second') });
  assert.deepEqual(await pods(), [
    [second, ready],
    [first, ready],
  ]);
  const made = { podSandboxId: second, config: containerConfig, sandboxConfig: podNamed('second') };
  const { containerId } = await runtime.createContainer(made);
  assert.deepEqual(await containers(), [[containerId, ContainerState.CONTAINER_CREATED]]);
  await runtime.startContainer({ containerId });
  assert.deepEqual(await containers(), [[containerId, ContainerState.CONTAINER_RUNNING]]);
  await runtime.stopContainer({ containerId, timeout: 0n });
  assert.deepEqual(await containers(), [[containerId, ContainerState.CONTAINER_EXITED]]);
  await runtime.stopPodSandbox({ podSandboxId: first });
  assert.deepEqual(await pods(), [
    [second, ready],
    [first, gone],
  ]);
  await runtime.removeContainer({ containerId });
  assert.deepEqual(await containers(), []);
  await runtime.removePodSandbox({ podSandboxId: second });
  assert.deepEqual(await pods(), [[first, gone]]);
});

test('lists choose by the state of the moment, by id and by labels', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId: first } = await runtime.runPodSandbox({
    config: { ...podNamed('first'), labels: { app: 'first' } },
  });
  const { podSandboxId: second } = await runtime.runPodSandbox({ config: podNamed('second') });
  const chosen = async (filter: object) => (await runtime.listPodSandbox({ filter })).items.map(({ id }) => id);
  const ready = { state: { state: PodSandboxState.SANDBOX_READY } };
  assert.deepEqual(await chosen(ready), [second, first]);
  await runtime.stopPodSandbox({ podSandboxId: second });
  assert.deepEqual(await chosen(ready), [first]);
  assert.deepEqual(await chosen({ state: { state: PodSandboxState.SANDBOX_NOTREADY } }), [second]);
  assert.deepEqual(await chosen({ labelSelector: { app: 'first' } }), [first]);
  assert.deepEqual(await chosen({ id: second.slice(0, 13) }), [second]);
  assert.deepEqual(await chosen({ id: 'unknown' }), []);
});
