import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import { NamespaceMode } from '../schema/api_pb.ts';
import { openDelegateNode } from '../testing/delegate-node.ts';
import { containerConfig, podConfig } from '../testing/fake-node.ts';
import { is } from '../testing/grpc-client.ts';

const openNode = () => openDelegateNode({ pulled: [] });

const hostPod = {
  metadata: { name: 'kube-proxy', namespace: 'kube-system', uid: 'u-2', attempt: 0 },
  linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
};
const name = 'registry.example/app:1';
const image = { image: name };

test('an image is pulled by the runtime that will run it, and is present and listed once', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { imageService } = node;
  await imageService.pullImage({ image, sandboxConfig: hostPod });
  assert.deepEqual([delegate.images.size, node.images.list().length], [1, 0]);
  assert.equal((await imageService.imageStatus({ image })).image?.size, 7n);
  await imageService.pullImage({ image, sandboxConfig: podConfig });
  assert.deepEqual([delegate.images.size, node.images.list().length], [1, 1]);
  const [own] = node.images.list();
  const id = own?.id ?? '';
  delegate.images.clear();
  delegate.images.set(id, { id, size: 7n, repoTags: ['also:1'], pinned: true });
  const { images } = await imageService.listImages();
  assert.deepEqual(
    images.map((each) => [each.id, each.size, each.repoTags, each.pinned]),
    [[id, 1007n, [name, 'also:1'], true]],
  );
  await imageService.removeImage({ image });
  assert.deepEqual([delegate.images.size, node.images.list().length], [0, 0]);
  await imageService.removeImage({ image });
});

test('a pull is routed by the handler it names, and by the sandbox that its pod has', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { runtime, imageService } = node;
  await imageService.pullImage({ image: { image: 'a:1', runtimeHandler: 'runc' } });
  await imageService.pullImage({ image: { image: 'b:1', runtimeHandler: 'podvm' }, sandboxConfig: hostPod });
  assert.deepEqual([delegate.images.size, node.images.list().length], [1, 1]);
  const status = async (reference: string, runtimeHandler: string) =>
    (await imageService.imageStatus({ image: { image: reference, runtimeHandler } })).image !== undefined;
  assert.deepEqual(
    [await status('a:1', ''), await status('a:1', 'runc'), await status('a:1', 'podvm'), await status('b:1', 'runc')],
    [true, true, false, false],
  );
  const plain = { metadata: { name: 'x', namespace: 'kube-system', uid: 'u-3', attempt: 0 } };
  await runtime.runPodSandbox({ config: plain, runtimeHandler: 'runc' });
  await imageService.pullImage({ image: { image: 'c:1' }, sandboxConfig: plain });
  assert.equal(delegate.images.size, 2, 'the sandbox of its pod is there');
});

test('an image that only the other runtime has is brought over by its digest when a container is created', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { runtime, imageService } = node;
  const { imageRef } = await imageService.pullImage({ image, sandboxConfig: podConfig });
  const { podSandboxId } = await runtime.runPodSandbox({ config: hostPod });
  const config = { metadata: { name: 'main' }, image: { image: imageRef, userSpecifiedImage: name } };
  const { containerId } = await runtime.createContainer({ podSandboxId, config });
  const [brought] = delegate.images.values();
  assert.deepEqual(brought?.repoDigests, [...(node.images.list()[0]?.digests ?? [])]);
  assert.equal(delegate.containers.get(containerId)?.imageRef, brought?.id);
  await runtime.createContainer({ podSandboxId, config });
  assert.equal(delegate.calls.filter((verb) => verb === 'pullImage').length, 1);

  await imageService.pullImage({ image: { image: 'other:1' }, sandboxConfig: hostPod });
  const own = await runtime.runPodSandbox({ config: podConfig });
  await runtime.createContainer({
    podSandboxId: own.podSandboxId,
    config: { ...containerConfig, image: { image: 'other:1' } },
  });
  assert.equal(node.images.list().length, 2);
  await imageService.pullImage({ image: { image: 'third:1' } });
  delegate.failing.set('pullImage', new PodvmError('denied', 'no credentials'));
  await assert.rejects(
    runtime.createContainer({ podSandboxId, config: { metadata: { name: 'c' }, image: { image: 'third:1' } } }),
    is(status.FAILED_PRECONDITION, /podvm has it, the delegate does not.*no credentials.*imagePullPolicy Always/),
  );
});

test('without its delegate, images are ours, and one that only it has cannot be removed', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { imageService } = node;
  await imageService.pullImage({ image });
  await delegate.stop();
  assert.equal((await imageService.listImages()).images.length, 1);
  assert.notEqual((await imageService.imageStatus({ image })).image, undefined);
  await imageService.removeImage({ image });
  await assert.rejects(imageService.removeImage({ image }), is(status.UNAVAILABLE, /setting delegate/));
  await assert.rejects(
    imageService.pullImage({ image, sandboxConfig: hostPod }),
    is(status.UNAVAILABLE, /setting delegate/),
  );
});

test('imageFsInfo() adds up what is on one file system, under our name for it', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { imageFilesystems, containerFilesystems } = await node.imageService.imageFsInfo();
  assert.deepEqual(imageFilesystems, containerFilesystems);
  const used = imageFilesystems.map((each) => each.usedBytes?.value ?? 0n);
  assert.equal(
    used.reduce((sum, value) => sum + value, 0n),
    1000n,
  );
  assert.match(imageFilesystems[0]?.fsId?.mountpoint ?? '', /images$/);
  await delegate.stop();
  assert.equal((await node.imageService.imageFsInfo()).imageFilesystems.length, 1);
});
