import assert from 'node:assert/strict';
import { access, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { errorKinds, PodvmError } from '#base/errors.ts';
import { createLog, silentLog } from '#host/log/log.ts';
import { ImageService } from '../schema/api_pb.ts';
import { connectTestClient, is } from '../testing/grpc-client.ts';
import { maxMessageBytes, serveGrpc } from './serve-grpc.ts';
import { addService, type Verbs } from './service.ts';
import { codeOfKind } from '#base/status-codes.ts';

type ImageVerbs = Verbs<typeof ImageService>;

const nothing: ImageVerbs = {
  listImages: async () => ({}),
  imageStatus: async () => ({}),
  pullImage: async () => ({}),
  removeImage: async () => ({}),
  imageFsInfo: async () => ({}),
  async *streamImages() {},
};

/** Serves the service of a test on its own socket, with a client. */
async function serve(verbs: Partial<ImageVerbs>, log = silentLog) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-grpc-'));
  const socketPath = join(directory, 'cri.sock');
  const add = { ...nothing, ...verbs };
  const server = await serveGrpc(socketPath, (to) => addService(to, ImageService, add, log));
  const client = connectTestClient(socketPath);
  return {
    socketPath,
    client,
    images: client.of(ImageService),
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
      await assert.rejects(access(socketPath));
      await rm(directory, { recursive: true });
    },
  };
}

/** Calls with longer and longer deadlines: on a busy host, the first may pass before the server has the call. */
async function failsLate({ images }: Awaited<ReturnType<typeof serve>>, isCalled: () => boolean): Promise<void> {
  for (let ms = 150; !isCalled(); ms *= 2)
    await assert.rejects(images.pullImage({}, { deadline: Date.now() + ms }), is(status.DEADLINE_EXCEEDED, /./));
}

test('every kind of error has a different code', () => {
  assert.deepEqual(Object.keys(codeOfKind).sort(), [...errorKinds].sort());
  assert.equal(new Set(Object.values(codeOfKind)).size, errorKinds.length);
});

test('a malformed request is refused as invalid, and the next call works', async () => {
  await using place = await serve({});
  const torn = place.client.raw('/runtime.v1.ImageService/PullImage', Buffer.from([0x0a, 0xff, 0xff, 0xff]));
  await assert.rejects(torn, is(status.INVALID_ARGUMENT, /not a valid runtime\.v1\.PullImageRequest/));
  await place.images.listImages();
});

test('a request above the message limit is refused as exhausted, and one below it is served', async () => {
  await using place = await serve({ imageStatus: async ({ image }) => ({ image: { id: `${image?.image.length}` } }) });
  const request = (bytes: number) => ({ image: { image: 'a'.repeat(bytes) } });
  await assert.rejects(place.images.imageStatus(request(maxMessageBytes)), is(status.RESOURCE_EXHAUSTED, /./));
  const { image } = await place.images.imageStatus(request(maxMessageBytes - 100));
  assert.equal(image?.id, String(maxMessageBytes - 100));
});

test('all log lines of a call have the id of that call, also the one that tells of its end', async () => {
  const written: string[] = [];
  const log = createLog('debug', (line) => written.push(line));
  const verbs: Partial<ImageVerbs> = {
    listImages: async () => {
      log.info('lists');
      return {};
    },
    imageStatus: () => {
      log.info('looks');
      return Promise.reject(new PodvmError('notFound', 'Cannot find it'));
    },
  };
  await using place = await serve(verbs, log);
  await Promise.all([place.images.listImages(), place.images.imageStatus({}).catch(() => undefined)]);
  const idsOf = (pattern: RegExp) =>
    written.filter((line) => pattern.test(line)).map((line) => / request=(\w+)/.exec(line)?.[1] ?? 'none');
  const [listing, looking] = [idsOf(/lists|verb=ListImages/), idsOf(/looks|verb=ImageStatus/)];
  assert.deepEqual([listing.length, looking.length], [2, 2], written.join(''));
  assert.deepEqual([new Set(listing).size, new Set(looking).size, listing[0] === looking[0]], [1, 1, false]);
  assert.match(listing[0] ?? '', /^[0-9a-f]{16}$/);
});

test('an error contains its causes and its fix, in printable characters', async () => {
  const cause = new Error('tea\u0007pot');
  const error = new PodvmError('denied', 'Cannot brew', { cause, fix: 'Use coffee.' });
  await using place = await serve({ listImages: () => Promise.reject(error) });
  await assert.rejects(
    place.images.listImages(),
    is(status.PERMISSION_DENIED, /^Cannot brew: tea\\u0007pot\. Use coffee\.$/),
  );
});

test('a call at its deadline aborts its handler with `timeout`, a cancelled one with `cancelled`', async () => {
  const hanging = (entered: () => void) => {
    const reason = Promise.withResolvers<unknown>();
    const handle = (_request: unknown, signal: AbortSignal) =>
      new Promise<never>((_resolve, reject) => {
        const tearDown = () => {
          reason.resolve((signal.reason as PodvmError).kind);
          reject(new Error('torn down somewhere deep'));
        };
        signal.addEventListener('abort', tearDown);
        if (signal.aborted) tearDown();
        entered();
      });
    return { handle, reason: reason.promise };
  };
  const stop = new AbortController();
  let isCalled = false;
  const late = hanging(() => (isCalled = true));
  const cancelled = hanging(() => stop.abort());
  await using place = await serve({ pullImage: late.handle, removeImage: cancelled.handle });
  await failsLate(place, () => isCalled);
  assert.equal(await late.reason, 'timeout');
  await assert.rejects(place.images.removeImage({}, { signal: stop.signal }), is(status.CANCELLED, /./));
  assert.equal(await cancelled.reason, 'cancelled');
});

test("a call's deadline stays one when the host's date is set back meanwhile", async (t) => {
  const reason = Promise.withResolvers<unknown>();
  let isCalled = false;
  const handle = (_request: unknown, signal: AbortSignal) =>
    new Promise<never>((_resolve, reject) => {
      if (signal.aborted) {
        reject(new Error('too late'));
        return;
      }
      isCalled = true;
      const now = Date.now;
      t.mock.method(Date, 'now', () => now() - 3_600_000);
      signal.addEventListener('abort', () => {
        reason.resolve((signal.reason as PodvmError).kind);
        reject(new Error('late'));
      });
    });
  await using place = await serve({ pullImage: handle });
  await failsLate(place, () => isCalled);
  assert.equal(await reason.promise, 'timeout');
});

test('a stream sends its answers at once, and its handler ends when the client disconnects', async () => {
  const ended = Promise.withResolvers<void>();
  await using place = await serve({
    async *streamImages(_request, signal) {
      try {
        for (let id = 0; ; id += 1) {
          yield { images: [{ id: `${id}`, spec: { image: 'x'.repeat(1000) } }] };
          await new Promise(setImmediate);
          if (signal.aborted) return;
        }
      } finally {
        ended.resolve();
      }
    },
  });
  let count = 0;
  for await (const { images } of place.images.streamImages()) {
    assert.equal(images[0]?.id, `${count}`);
    count += 1;
    if (count === 500) break;
  }
  await ended.promise;
});

test('an error in a stream reaches the client after the answers before it', async () => {
  await using place = await serve({
    async *streamImages() {
      yield { images: [] };
      throw new PodvmError('notFound', 'Cannot go on');
    },
  });
  let count = 0;
  const read = async () => {
    for await (const _answer of place.images.streamImages()) count += 1;
  };
  await assert.rejects(read(), is(status.NOT_FOUND, /Cannot go on/));
  assert.equal(count, 1);
});

test('serveGrpc() refuses a served socket, replaces an unserved one, and allows only its owner to open it', async () => {
  await using place = await serve({});
  await assert.rejects(
    serveGrpc(place.socketPath, () => {}),
    { kind: 'busy' },
  );
  assert.equal((await stat(place.socketPath)).mode & 0o777, 0o600);
  const stale = `${place.socketPath}.stale`;
  await writeFile(stale, '');
  await using _server = await serveGrpc(stale, (to) => addService(to, ImageService, nothing, silentLog));
});
