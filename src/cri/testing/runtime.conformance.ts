import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ContainerState, ImageService, PodSandboxState, RuntimeService } from '../schema/api_pb.ts';
import { connectTestClient, is, type ClientOf, type StreamingClient } from './grpc-client.ts';

export interface ServedRuntime extends AsyncDisposable {
  readonly socketPath: string;
}

const notFound = 5;
const config = {
  metadata: { name: 'web', namespace: 'default', uid: 'u-1', attempt: 0 },
  labels: { app: 'web' },
};
const containerConfig = {
  metadata: { name: 'main', attempt: 0 },
  image: { image: 'busybox' },
  command: ['sh'],
  labels: { part: 'main' },
};

/** Conformance tests of a runtime to which podvm forwards calls, run on podvm's own CRI and on the fake in tests. */
export function describeRuntime(name: string, open: () => Promise<ServedRuntime>): void {
  describe(`the CRI of ${name}`, () => {
    let served: ServedRuntime;
    let client: StreamingClient;
    let runtime: ClientOf<typeof RuntimeService>;
    let images: ClientOf<typeof ImageService>;

    before(async () => {
      served = await open();
      client = connectTestClient(served.socketPath);
      [runtime, images] = [client.of(RuntimeService), client.of(ImageService)];
      await images.pullImage({ image: { image: 'busybox' } });
    });
    after(async () => {
      client[Symbol.dispose]();
      await served[Symbol.asyncDispose]();
    });

    test('keeps a pod from its start to its removal, which may be asked for twice', async () => {
      const { podSandboxId: id } = await runtime.runPodSandbox({ config });
      assert.match(id, /^[-\w]{12,64}$/);
      const [listed, ...others] = (await runtime.listPodSandbox()).items;
      assert.deepEqual(others, []);
      assert.deepEqual(
        [listed?.id, listed?.state, listed?.metadata?.name, listed?.metadata?.uid, listed?.labels],
        [id, PodSandboxState.SANDBOX_READY, 'web', 'u-1', { app: 'web' }],
      );
      assert.equal((await runtime.podSandboxStatus({ podSandboxId: id })).status?.state, PodSandboxState.SANDBOX_READY);
      await runtime.stopPodSandbox({ podSandboxId: id });
      await runtime.stopPodSandbox({ podSandboxId: id });
      const { status } = await runtime.podSandboxStatus({ podSandboxId: id });
      assert.equal(status?.state, PodSandboxState.SANDBOX_NOTREADY);
      await runtime.removePodSandbox({ podSandboxId: id });
      await runtime.removePodSandbox({ podSandboxId: id });
      assert.deepEqual((await runtime.listPodSandbox()).items, []);
      await assert.rejects(runtime.podSandboxStatus({ podSandboxId: id }), is(notFound));
    });

    test('keeps a container with its pod, and tells its state', async () => {
      const { podSandboxId } = await runtime.runPodSandbox({ config });
      const made = { podSandboxId, config: containerConfig, sandboxConfig: config };
      const { containerId } = await runtime.createContainer(made);
      const stateOf = async () => {
        const [listed, ...others] = (await runtime.listContainers()).containers;
        assert.deepEqual(others, []);
        assert.deepEqual([listed?.id, listed?.podSandboxId], [containerId, podSandboxId]);
        assert.deepEqual(listed?.labels, { part: 'main' });
        const { status } = await runtime.containerStatus({ containerId });
        assert.deepEqual([status?.id, status?.state], [containerId, listed?.state]);
        return listed?.state;
      };
      assert.equal(await stateOf(), ContainerState.CONTAINER_CREATED);
      await runtime.startContainer({ containerId });
      assert.equal(await stateOf(), ContainerState.CONTAINER_RUNNING);
      await runtime.stopPodSandbox({ podSandboxId });
      assert.equal(await stateOf(), ContainerState.CONTAINER_EXITED);
      await runtime.removeContainer({ containerId });
      await runtime.removeContainer({ containerId });
      assert.deepEqual((await runtime.listContainers()).containers, []);
      await runtime.removePodSandbox({ podSandboxId });
    });

    test('does not know ids of another runtime', async () => {
      const other = 'f'.repeat(64);
      await assert.rejects(runtime.podSandboxStatus({ podSandboxId: other }), is(notFound));
      await assert.rejects(runtime.containerStatus({ containerId: other }), is(notFound));
      await assert.rejects(runtime.startContainer({ containerId: other }), is(notFound));
      await assert.rejects(
        runtime.createContainer({ podSandboxId: other, config: containerConfig, sandboxConfig: config }),
        is(notFound),
      );
    });

    test('knows an image by its name and its id, until it is removed', async () => {
      const { imageRef } = await images.pullImage({ image: { image: 'docker.io/library/other:1' } });
      for (const name of ['docker.io/library/other:1', imageRef]) {
        assert.equal((await images.imageStatus({ image: { image: name } })).image?.id, imageRef, name);
      }
      assert.ok((await images.listImages()).images.some(({ id }) => id === imageRef));
      await images.removeImage({ image: { image: imageRef } });
      await images.removeImage({ image: { image: imageRef } });
      assert.equal((await images.imageStatus({ image: { image: imageRef } })).image, undefined);
    });
  });
}
