import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, test } from 'node:test';
import { ConsoleLog, maxConsoleBytes } from './console-log.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-console-'));
after(() => rm(directory, { recursive: true }));
let made = 0;
const newPath = () => join(directory, `${(made += 1)}.log`);

async function written(path: string, chunks: readonly Buffer[]): Promise<Buffer> {
  const source = new PassThrough();
  const log = await ConsoleLog.open(path, source);
  for (const chunk of chunks) source.write(chunk);
  source.end();
  await log.finished();
  return await readFile(path);
}

test('ConsoleLog never exceeds its limit for any chunk sizes, and always keeps the end', async () => {
  const feeds = [
    Array.from({ length: 200 }, (_, at) => Buffer.alloc(16 * 1024, at)),
    [Buffer.concat(Array.from({ length: 5 }, (_, at) => Buffer.alloc(maxConsoleBytes, at))), Buffer.from('end')],
    [Buffer.alloc(maxConsoleBytes, 1), Buffer.alloc(1, 2)],
    [Buffer.alloc(maxConsoleBytes / 2, 1), Buffer.alloc(maxConsoleBytes / 2, 2), Buffer.alloc(7, 3)],
  ];
  for (const chunks of feeds) {
    const kept = await written(newPath(), chunks);
    assert.ok(kept.length <= maxConsoleBytes, `${kept.length} bytes`);
    const said = Buffer.concat(chunks);
    const tail = said.subarray(-maxConsoleBytes / 2);
    assert.ok(kept.subarray(-tail.length).equals(tail), 'the last half of the limit holds the latest output');
    assert.ok(said.subarray(-kept.length).equals(kept), 'the kept output has no gap');
  }
});

test('ConsoleLog appends to the output of an earlier process', async () => {
  const path = newPath();
  await written(path, [Buffer.from('before ')]);
  assert.equal(String(await written(path, [Buffer.from('after')])), 'before after');
});

test('ConsoleLog does not follow a link that a guest put in its place', async () => {
  const path = newPath();
  const victim = join(directory, 'victim');
  await writeFile(victim, 'precious');
  await symlink(victim, path);
  await assert.rejects(ConsoleLog.open(path, new PassThrough()), { code: 'ELOOP' });
  assert.equal(await readFile(victim, 'utf8'), 'precious');
});

test('ConsoleLog closes file and source when it is disposed, also twice', async () => {
  const path = newPath();
  const source = new PassThrough();
  const log = await ConsoleLog.open(path, source);
  await log[Symbol.asyncDispose]();
  await log[Symbol.asyncDispose]();
  assert.equal(source.destroyed, true);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});
