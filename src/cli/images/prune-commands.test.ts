import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Client } from '../client.ts';
import { pruneImages, pruneSystem } from './prune-commands.ts';
import type { Terminal } from '../terminal/terminal.ts';

const image = { id: 'sha256:1', references: [], digests: [], sizeBytes: 2_500_000 };
const pod = (name: string, more: object) => ({
  ...{ namespace: 'default', name, phase: 'Failed', ready: '0/1', restarts: 0, addresses: [] },
  createdAt: '2026-01-01T00:00:00Z',
  ...more,
});

/** A node with an image, a pod that runs and one that has ended; and a terminal on which `answer` is typed. */
function open(answer?: string) {
  const said = { stdout: '', stderr: '' };
  const calls: string[] = [];
  const stdin = Object.assign(new PassThrough(), { isTTY: answer !== undefined });
  if (answer !== undefined) stdin.write(`${answer}\n`);
  const streamOf = (name: keyof typeof said) =>
    new PassThrough().on('data', (text: Buffer) => (said[name] += text.toString()));
  const terminal = { stdin, stdout: streamOf('stdout'), stderr: streamOf('stderr') } as unknown as Terminal; // SAFE: all that it uses
  const client = {
    get: async () => [pod('web', {}), pod('old', { endedAt: '2026-01-01T00:00:01Z' })],
    send: async (method: string, path: string, body: unknown) => {
      calls.push(`${method} ${path} ${JSON.stringify(body)}`);
      return path.startsWith('/v1/images') ? [image] : pod('old', {});
    },
  } as unknown as Client; // SAFE: all that the commands use
  return { client, terminal, said, calls };
}

test('prune asks for confirmation, and removes nothing without it', async () => {
  for (const [answer, count] of [
    ['', 0],
    ['no', 0],
    ['y', 1],
    ['YES', 1],
  ] as const) {
    const { client, terminal, said, calls } = open(answer);
    await pruneImages(client, { all: true, force: false }, terminal);
    assert.match(said.stderr, /^Remove all images that no pod uses\? \[y\/N\] /);
    assert.equal(calls.length, count, answer);
  }
  const { client, terminal, calls } = open();
  await assert.rejects(pruneImages(client, { all: false, force: false }, terminal), /not a terminal/);
  assert.deepEqual(calls, []);
});

test('system prune removes ended pods, then images, and lists them', async () => {
  const { client, terminal, said, calls } = open();
  await pruneSystem(client, { all: false, force: true }, terminal);
  assert.deepEqual(calls, ['DELETE /v1/pods/default/old undefined', 'POST /v1/images/prune {"all":false}']);
  assert.equal(said.stdout, 'default/old removed\nsha256:1 removed\n2.5 MB of images removed\n');
});
