import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { CountedImages } from '#image/image-counts.ts';
import type { Image, ImageStore } from '#image/images.ts';
import { imageRoutes } from './image-routes.ts';
import { serveRoutes } from '../serve-routes.ts';

const imageOf = (id: string, references: readonly string[]): Image => ({
  id,
  references,
  digests: [],
  sizeBytes: 1_000_000,
  createdAt: '2026-01-01T00:00:00Z',
  config: {},
});

test('pull passes the client’s logins to the store, and never a path of the node', async () => {
  const pulls: unknown[] = [];
  const pull: ImageStore['pull'] = async (reference, { logins, authFile }) => {
    pulls.push([reference, logins, authFile]);
    return imageOf('sha256:a', []);
  };
  await using served = await serveRoutes(imageRoutes({ pull } as ImageStore)); // SAFE: all that the call uses
  const ask = async (body: object) => {
    const outgoing = request({ socketPath: served.socketPath, method: 'POST', path: '/v1/images/pull', agent: false });
    outgoing.end(JSON.stringify(body));
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    return `${response.statusCode} ${await text(response)}`;
  };
  const logins = [{ registry: 'r.example', username: 'shop', password: 'secret' }];
  assert.match(await ask({ reference: 'r.example/a', logins }), /^200 .*sha256:a/);
  assert.match(await ask({ reference: 'r.example/a', authFile: '/root/.docker/config.json' }), /^400 .*authFile/);
  assert.deepEqual(pulls, [['r.example/a', logins, undefined]]);
});

test('pulls in progress are listed with what they do', async () => {
  const counts = new CountedImages();
  const { promise, resolve } = Promise.withResolvers<void>();
  const pulled = counts.pull('r.example/a:1', async (note) => {
    note('pulling r.example/a:1: 1 of 2 MB');
    await promise;
  });
  await using served = await serveRoutes(imageRoutes({ counts } as unknown as ImageStore)); // SAFE: all that the call uses
  const list = async () => {
    const asked = request({ socketPath: served.socketPath, path: '/v1/images/pulling', agent: false });
    const [response] = (await once(asked.end(), 'response')) as [IncomingMessage];
    return JSON.parse(await text(response)) as unknown;
  };
  assert.deepEqual(await list(), [{ reference: 'r.example/a:1', doing: 'pulling r.example/a:1: 1 of 2 MB' }]);
  resolve();
  await pulled;
  assert.deepEqual(await list(), []);
});

test('prune removes images without a name, or all, except those in use or held', async () => {
  let images = [
    imageOf('sha256:named', ['docker.io/library/nginx:latest']),
    imageOf('sha256:nameless', []),
    imageOf('sha256:used', []),
    imageOf('sha256:held', []),
  ];
  const store = {
    list: () => images,
    remove: async (id: string) => {
      if (id === 'sha256:held') throw new PodvmError('busy', 'Cannot remove the image: it is in use');
      const found = images.find((image) => image.id === id) ?? assert.fail(id);
      images = images.filter((image) => image !== found);
      return found;
    },
  } as unknown as ImageStore; // SAFE: all that the call uses
  await using served = await serveRoutes(imageRoutes(store, () => new Set(['sha256:used'])));
  const prune = async (body: string) => {
    const outgoing = request({ socketPath: served.socketPath, method: 'POST', path: '/v1/images/prune', agent: false });
    outgoing.end(body);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    return (JSON.parse(await text(response)) as { id: string }[]).map(({ id }) => id);
  };
  assert.deepEqual(await prune('{}'), ['sha256:nameless']);
  assert.deepEqual(await prune('{"all":true}'), ['sha256:named']);
  assert.deepEqual(
    images.map(({ id }) => id),
    ['sha256:used', 'sha256:held'],
  );
});
