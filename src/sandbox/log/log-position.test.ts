import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { recoverLogPosition } from './log-position.ts';
import { openLogWriter, type LogFileOptions } from './log-writer.ts';
import { readLog } from './read-log.ts';
import type { OutputChunk } from '../sandbox.ts';

const time = '2026-11-23T20:00:00.123456789Z';
const never = new AbortController().signal;

async function directory() {
  const path = await mkdtemp(join(tmpdir(), 'podvm-log-'));
  const [log, positionPath] = [join(path, '0.log'), join(path, 'position')];
  return {
    path,
    log,
    open: (options: LogFileOptions = {}) => openLogWriter(log, () => time, { positionPath, ...options }),
    recover: () => recoverLogPosition(positionPath, log),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}

/** A file system of 64 KiB. */
async function smallDisk() {
  const path = await mkdtemp(join(tmpdir(), 'podvm-small-'));
  await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'podvm-test', path]);
  return {
    path,
    bytes: 64 * 1024,
    async [Symbol.asyncDispose]() {
      await run('umount', [path]);
      await rm(path, { recursive: true });
    },
  };
}

const skip = process.getuid?.() === 0 ? false : 'needs root';

const chunkOf = (text: string, stream: OutputChunk['stream'] = 'stdout'): OutputChunk => ({
  stream,
  bytes: Buffer.from(text),
});

test('recoverLogPosition() counts the bytes of each output that were written after the position was saved', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom('stdout', 'stderr'), fc.uint8Array({ minLength: 1, maxLength: 40_000 })), {
        maxLength: 6,
      }),
      async (chunks) => {
        await using place = await directory();
        await using writer = await place.open();
        const expected = { stdout: 0, stderr: 0 };
        for (const [stream, bytes] of chunks) {
          await writer.write({ stream, bytes });
          expected[stream] += bytes.length;
        }
        const { stdout, stderr } = (await place.recover()) ?? {};
        assert.deepEqual({ stdout, stderr }, expected);
      },
    ),
    { numRuns: 30 },
  );
});

test('recoverLogPosition() finds a log that was rotated, by us or by others', async () => {
  await using place = await directory();
  {
    await using rotating = await place.open({ limits: { maxFileBytes: 300, maxFiles: 2 } });
    for (let n = 0; n < 20; n += 1) await rotating.write(chunkOf('0123456789\n'));
    assert.equal((await place.recover())?.stdout, 220);
  }
  await using writer = await place.open({ logged: { stdout: 220, stderr: 0 } });
  await rename(place.log, join(place.path, '0.log.20261123'));
  await writer.write(chunkOf('to the renamed file\n'));
  assert.equal((await place.recover())?.stdout, 240);
  await writer.reopen();
  await writer.write(chunkOf('to the new one\n', 'stderr'));
  assert.deepEqual({ ...(await place.recover()) }, { stdout: 240, stderr: 15 });
});

test('the saved position is less than 256 KiB behind the log between two writes', async () => {
  await using place = await directory();
  await using writer = await place.open();
  for (let n = 0; n < 40; n += 1) {
    await writer.write(chunkOf('0123456789\n'.repeat(500)));
    const saved = v.parse(
      v.object({ size: v.number() }),
      JSON.parse(await readFile(join(place.path, 'position'), 'utf8')),
    );
    const { size } = await stat(place.log);
    assert.ok(size - saved.size < 256 * 1024, `${saved.size} of ${size}`);
  }
});

test('recoverLogPosition() removes an incomplete record and does not count it', async () => {
  await using place = await directory();
  await using writer = await place.open();
  await writer.write(chunkOf('whole\n'));
  await appendFile(place.log, `${time} stdout F to`);
  assert.equal((await place.recover())?.stdout, 6);
  assert.equal(await readFile(place.log, 'utf8'), `${time} stdout F whole\n`);
});

test('recoverLogPosition() returns the saved position when the log is missing or shorter', async () => {
  await using place = await directory();
  await using writer = await place.open({ logged: { stdout: 7, stderr: 8 } });
  await writer.write(chunkOf('more\n'));
  await truncate(place.log, 0);
  assert.deepEqual({ ...(await place.recover()), file: '' }, { stdout: 7, stderr: 8, size: 0, file: '' });
  await rm(place.log);
  assert.equal((await place.recover())?.stdout, 7);
});

test('recoverLogPosition() returns undefined without a valid position', async () => {
  await using place = await directory();
  await writeFile(place.log, `${time} stdout F x\n`);
  assert.equal(await place.recover(), undefined);
  for (const text of ['', '{', '{"file":"1:2","size":-1,"stdout":0,"stderr":0}']) {
    await writeFile(join(place.path, 'position'), text);
    assert.equal(await place.recover(), undefined);
  }
});

test('a log continues after a failed write; missing bytes are named in it and count as logged', { skip }, async () => {
  await using place = await directory();
  await using disk = await smallDisk();
  await using writer = await openLogWriter(join(disk.path, '0.log'), () => time, {
    positionPath: join(place.path, 'position'),
  });
  await writer.write(chunkOf('before\n'));
  await writeFile(join(disk.path, 'ballast'), Buffer.alloc(disk.bytes)).catch(() => {});
  const large = chunkOf(`${'x'.repeat(8000)}\n`.repeat(4));
  await assert.rejects(writer.write(large), { kind: 'exhausted' });
  await assert.rejects(writer.write(large), { kind: 'exhausted' });
  await rm(join(disk.path, 'ballast'));
  await writer.write(chunkOf('after\n'));
  const lines: string[] = [];
  for await (const { bytes } of readLog(join(disk.path, '0.log'), {}, never)) lines.push(Buffer.from(bytes).toString());
  assert.deepEqual(lines, [
    'before\n',
    'podvm: 64008 bytes of output are missing here: the disk was full\n',
    'after\n',
  ]);
  const logged = await recoverLogPosition(join(place.path, 'position'), join(disk.path, '0.log'));
  assert.equal(logged?.stdout, 'before\n'.length + 64_008 + 'after\n'.length);
  assert.equal(logged.stderr, 0);
});
