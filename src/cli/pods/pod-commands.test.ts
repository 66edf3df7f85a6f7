import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { parse } from 'yaml';
import { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { failureCode } from '../exit-codes.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { inspectCommand } from './pod-commands.ts';

/** Prints details of pods, of which one is missing. */
async function inspect(names: readonly string[], form: 'json' | 'yaml' = 'json') {
  const client = {
    get: async (path: string) => {
      const name = path.split('/')[4] ?? '';
      if (name === 'gone') throw new PodvmError('notFound', 'Cannot find pod gone: no such pod');
      return { name };
    },
  } as unknown as Client; // SAFE: the only call of the command
  const said = { stdout: '', stderr: '' };
  const streamOf = (name: keyof typeof said) =>
    new Writable({ write: (text: Buffer, _encoding, done) => done(void (said[name] += text)) });
  const terminal = { stdout: streamOf('stdout'), stderr: streamOf('stderr') } as unknown as Terminal; // SAFE: all that it uses
  return { code: await inspectCommand(client, names, form, terminal), ...said };
}

test('inspect prints one pod as an object, and several as a list', async () => {
  assert.deepEqual(JSON.parse((await inspect(['web'])).stdout), { name: 'web' });
  const { code, stdout, stderr } = await inspect(['web', 'db', 'web']);
  assert.deepEqual([code, JSON.parse(stdout), stderr], [0, [{ name: 'web' }, { name: 'db' }], '']);
  assert.deepEqual(parse((await inspect(['web', 'db'], 'yaml')).stdout), [{ name: 'web' }, { name: 'db' }]);
});

test('inspect prints the other pods where one is missing, and fails', async () => {
  const { code, stdout, stderr } = await inspect(['web', 'gone', 'db']);
  assert.deepEqual([code, JSON.parse(stdout)], [failureCode, [{ name: 'web' }, { name: 'db' }]]);
  assert.match(stderr, /^podvm: Cannot find pod gone: no such pod\n$/);
  await assert.rejects(inspect(['gone']), { kind: 'notFound' });
});
