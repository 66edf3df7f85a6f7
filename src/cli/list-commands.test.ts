import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import { parse } from 'yaml';
import type { ImageSummary } from '#api/images.ts';
import type { VolumeSummary } from '#api/volumes.ts';
import { PodvmError } from '#base/errors.ts';
import type { Client } from './client.ts';
import type { CommandRow } from './command-row.ts';
import { imageCommands, imageListRow } from './images/image-commands.ts';
import type { EndSignals } from './terminal/end-signals.ts';
import type { Terminal } from './terminal/terminal.ts';
import { volumeCommands } from './images/volume-commands.ts';

const untilEnded = async (use: (ends: EndSignals) => Promise<void>) =>
  await use({ any: new AbortController().signal } as EndSignals); // SAFE: all that they use

/** Runs a command of a list over what a node answers. */
async function list(
  make: (use: Client, terminal: Terminal) => CommandRow | undefined,
  answer: unknown,
  options: object,
) {
  let stdout = '';
  const client = {
    get: async (_: string, schema: v.GenericSchema) => v.parse(schema, answer),
  } as unknown as Client; // SAFE: the only call of the command
  const terminal = {
    stdout: new PassThrough().on('data', (text: Buffer) => (stdout += text.toString())),
  } as unknown as Terminal; // SAFE: all that it uses
  // SAFE: the commands take their options alone
  await (make(client, terminal)?.action as ((given: object) => Promise<void>) | undefined)?.(options);
  return stdout;
}

test('volume ls has its forms of output, and chooses a namespace', async () => {
  const volume = (namespace: string, name: string, pods: string[] = []): VolumeSummary => ({
    ...{ namespace, name, pods },
    sizeBytes: 64 * 2 ** 20,
    usedBytes: 1_500_000,
    createdAt: new Date(Date.now() - 3_000).toISOString(),
  });
  const volumes = [volume('default', 'data', ['db-0']), volume('shop', 'cache')];
  const ls = (options: object) =>
    list(
      (client, terminal) => {
        const rows = volumeCommands({ terminal, exit: () => {}, withKnown: (use) => use(client), untilEnded });
        return rows.find(({ name }) => name === 'ls');
      },
      volumes,
      { output: 'table', ...options },
    );
  assert.match(
    await ls({}),
    /^NAMESPACE +NAME +SIZE +USED +AGE +PODS\ndefault +data +64 MiB +2 MiB +\d+s +db-0\nshop +cache +64 MiB +2 MiB +\d+s +-\n$/,
  );
  assert.equal(await ls({ output: 'name' }), 'default/data\nshop/cache\n');
  assert.equal(await ls({ output: 'name', namespace: 'shop' }), 'shop/cache\n');
  assert.deepEqual(JSON.parse(await ls({ output: 'json' })), volumes);
  assert.deepEqual(parse(await ls({ output: 'yaml' })), volumes);
  await assert.rejects(ls({ selector: 'app=db' }), /volumes have no labels/);
});

test('volume rm removes the volumes of these names, and none for a path', async () => {
  const sent: string[] = [];
  const codes: number[] = [];
  let stderr = '';
  const client = {
    send: async (method: string, path: string) => {
      sent.push(`${method} ${path}`);
      return { namespace: 'n', name: 'v' };
    },
  } as unknown as Client; // SAFE: the only call of the command
  const terminal = {
    stdout: new PassThrough().resume(),
    stderr: new PassThrough().on('data', (text: Buffer) => (stderr += text.toString())),
  } as unknown as Terminal; // SAFE: all that it uses
  const rows = volumeCommands({
    terminal,
    exit: (code) => void codes.push(code),
    withKnown: (use) => use(client),
    untilEnded,
  });
  // SAFE: the command takes its names alone
  const rm = rows.find(({ name }) => name === 'rm')?.action as (names: string[]) => Promise<void>;
  await rm(['data', 'shop/cache']);
  await rm(['shop/cache/old', 'shop/', '/data']);
  assert.deepEqual(sent, ['DELETE /v1/volumes/default/data', 'DELETE /v1/volumes/shop/cache']);
  assert.equal(stderr.match(/expected NAME or NAMESPACE\/NAME, got/g)?.length, 3);
  assert.deepEqual([codes[0], (codes[1] ?? 0) > 0], [0, true]);
});

test('image ls has its forms of output', async () => {
  const images: ImageSummary[] = [
    { id: 'sha256:aa', references: ['a:1', 'a:2'], digests: [], sizeBytes: 1_000_000 },
    { id: 'sha256:bb', references: [], digests: [], sizeBytes: 2_000_000 },
  ];
  const ls = (options: object) =>
    list(
      (client, terminal) => imageListRow('ls', (_, use) => untilEnded((ends) => use(client, ends)), terminal),
      images,
      {
        output: 'table',
        json: false,
        ...options,
      },
    );
  assert.match(await ls({}), /^REFERENCE +IMAGE ID +SIZE\na:1 +aa +1\.0 MB\na:2 +aa +1\.0 MB\n<none> +bb +2\.0 MB\n$/);
  assert.equal(await ls({ output: 'name' }), 'a:1\na:2\nsha256:bb\n');
  assert.deepEqual(parse(await ls({ output: 'yaml' })), images);
  assert.equal(await ls({ output: 'json' }), await ls({ json: true }));
});

test('image rm removes each of its names, and continues after one that is missing', async () => {
  const said = { stdout: '', stderr: '', code: -1 };
  const client = {
    send: async (_: string, path: string) => {
      const name = new URL(path, 'http://node').searchParams.get('reference') ?? '';
      if (name === 'missing') throw new PodvmError('notFound', 'Cannot find the image missing');
      return { untagged: [name], removed: 'sha256:aa' };
    },
  } as unknown as Client; // SAFE: the only call of the command
  const stream = (name: 'stdout' | 'stderr') =>
    new PassThrough().on('data', (text: Buffer) => (said[name] += text.toString()));
  const terminal = { stdout: stream('stdout'), stderr: stream('stderr') } as unknown as Terminal; // SAFE: all that it uses
  const rows = imageCommands(
    (_, use) => untilEnded((ends) => use(client, ends)),
    { terminal, userLogins: () => Promise.reject(new Error('not to be called')) },
    (code) => (said.code = code),
  );
  // SAFE: the command takes its names alone
  const rm = rows.find(({ name }) => name === 'rm')?.action as (names: string[]) => Promise<void>;
  await rm(['a:1', 'missing', 'b:1']);
  assert.equal(said.stdout, 'a:1 untagged\nsha256:aa removed\nb:1 untagged\nsha256:aa removed\n');
  assert.match(said.stderr, /^podvm: Cannot find the image missing\n$/);
  assert.equal(said.code, 125);
});

test('images refuses the options that choose pods, and says why', async () => {
  const ls = (options: object) =>
    list(
      (client, terminal) =>
        imageListRow('ls', async (_, use) => await untilEnded(async (ends) => await use(client, ends)), terminal),
      [],
      { output: 'name', ...options },
    );
  await assert.rejects(ls({ selector: 'app=web' }), /Cannot list images with -l: images are those of the whole node/);
  await assert.rejects(ls({ namespace: 'shop' }), /Cannot list images with -n/);
  assert.equal(await ls({ allNamespaces: true }), '');
});
