import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { is } from '../testing/grpc-client.ts';
import { openFakeNode } from '../testing/fake-node.ts';

const nginx = { image: 'registry.example/nginx:1' };

test('an image is pulled, found by every name, counted, and removed; a missing one is no error', async () => {
  await using node = await openFakeNode({ pulled: [] });
  const { imageService } = node;
  assert.equal((await imageService.imageStatus({ image: nginx })).image, undefined);
  await imageService.removeImage({ image: nginx });
  const { imageRef } = await imageService.pullImage({ image: nginx });
  for (const name of [nginx.image, imageRef]) {
    const { image } = await imageService.imageStatus({ image: { image: name }, verbose: true });
    assert.equal(image?.id, imageRef);
    assert.deepEqual(image.repoTags, [nginx.image]);
    assert.equal(image.size, 1000n);
    assert.equal(image.uid?.value, 1000n);
    assert.equal(image.username, '');
  }
  assert.equal((await imageService.listImages()).images.length, 1);
  assert.equal(
    (await imageService.listImages({ filter: { image: { image: 'registry.example/other' } } })).images.length,
    0,
  );
  const streamed: string[] = [];
  for await (const { images } of imageService.streamImages()) streamed.push(...images.map(({ id }) => id));
  assert.deepEqual(streamed, [imageRef]);
  const { imageFilesystems, containerFilesystems } = await imageService.imageFsInfo();
  for (const usage of [imageFilesystems[0], containerFilesystems[0]]) {
    assert.equal(usage?.fsId?.mountpoint, join(node.directory, 'images'));
    assert.equal(usage.usedBytes?.value, 1000n);
    assert.equal(usage.inodesUsed?.value, 1n);
  }
  await imageService.removeImage({ image: { image: imageRef } });
  assert.deepEqual((await imageService.listImages()).images, []);
});

test('a damaged image is reported as missing unless it was loaded, and is always listed', async () => {
  await using node = await openFakeNode({ pulled: [] });
  const { imageService, images } = node;
  await imageService.pullImage({ image: nginx });
  images.damage(nginx.image);
  assert.equal((await imageService.imageStatus({ image: nginx })).image, undefined);
  assert.equal((await imageService.listImages()).images.length, 1);
  images.damage(nginx.image, { digests: [] });
  assert.notEqual((await imageService.imageStatus({ image: nginx })).image, undefined);
});

test('requests without an image are refused', async () => {
  await using node = await openFakeNode({ pulled: [] });
  const { imageStatus, pullImage, removeImage } = node.imageService;
  for (const verb of [imageStatus, pullImage, removeImage]) {
    await assert.rejects(verb(), is(status.INVALID_ARGUMENT, /has no image reference/));
    await assert.rejects(verb({ image: {} }), is(status.INVALID_ARGUMENT, /has no image reference/));
  }
});

test('a pull ends at its deadline, which aborts the store', async () => {
  await using node = await openFakeNode({ pulled: [] });
  const ended = Promise.withResolvers<void>();
  node.images.onPull = (signal) =>
    new Promise((_resolve, reject) =>
      signal.addEventListener('abort', () => {
        ended.resolve();
        reject(new Error('aborted'));
      }),
    );
  const late = node.imageService.pullImage({ image: nginx }, { deadline: Date.now() + 1 });
  await assert.rejects(late, is(status.DEADLINE_EXCEEDED));
  const later = node.imageService.pullImage({ image: nginx }, { deadline: Date.now() + 200 });
  await assert.rejects(later, is(status.DEADLINE_EXCEEDED));
  await ended.promise;
});

test('credentials are only in a private file, until their pulls have ended', async () => {
  await using node = await openFakeNode({ pulled: [] });
  const directory = join(node.directory, 'cri/credentials');
  const files: unknown[] = [];
  node.images.onPull = async (_signal, path) => {
    files.push(path === undefined ? undefined : JSON.parse(await readFile(path, 'utf8')));
  };
  const pull = (auth: object | undefined) => node.imageService.pullImage({ image: nginx, ...(auth && { auth }) });
  await pull(undefined);
  await Promise.all([pull({ username: 'me', password: 'secret' }), pull({ username: 'me', password: 'secret' })]);
  await pull({ identityToken: 'token' });
  const basic = { auths: { 'registry.example': { auth: Buffer.from('me:secret').toString('base64') } } };
  assert.deepEqual(files, [undefined, basic, basic, { auths: { 'registry.example': { identitytoken: 'token' } } }]);
  assert.equal(node.images.pulls[1]?.authFile, node.images.pulls[2]?.authFile); // so that they share the download
  assert.deepEqual(await readdir(directory), []);
  await assert.rejects(pull({ registryToken: 'x' }), is(status.UNIMPLEMENTED, /registry token/));
});
