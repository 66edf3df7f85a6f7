import assert from 'node:assert/strict';
import { mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { within } from '#host/wait.ts';
import { countRecords, createNanoClock, decodeRecord, encodeRecords, maxRecordBytes } from './log-format.ts';
import { openLogWriter, rotatedNumbers } from './log-writer.ts';
import { readLog, type ReadLogOptions } from './read-log.ts';
import type { OutputChunk } from '../sandbox.ts';

const time = '2026-11-23T20:00:00.123456789Z';
const roomy = { maxFileBytes: 1024 * 1024, maxFiles: 5 };
const never = new AbortController().signal;

async function directory() {
  const path = await mkdtemp(join(tmpdir(), 'podvm-log-'));
  return { path, log: join(path, '0.log'), [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

const chunkOf = (text: string, stream: OutputChunk['stream'] = 'stdout'): OutputChunk => ({
  stream,
  bytes: Buffer.from(text),
});

async function textOf(path: string, options: ReadLogOptions = {}, signal = never): Promise<string> {
  let text = '';
  for await (const record of readLog(path, options, signal)) text += Buffer.from(record.bytes).toString('latin1');
  return text;
}

const encoded = (chunk: OutputChunk) => Buffer.concat([...encodeRecords(chunk, time)].map(({ records }) => records));

test('encodeRecords() writes the format that the kubelet reads', () => {
  assert.equal(
    encoded(chunkOf('one\n\ntwo', 'stderr')).toString(),
    `${time} stderr F one\n${time} stderr F \n${time} stderr P two\n`,
  );
});

test('encodeRecords() cuts a long line into partial records', () => {
  const lines = encoded(chunkOf(`${'x'.repeat(maxRecordBytes + 1)}\n`))
    .toString()
    .split('\n');
  assert.deepEqual(
    lines.map((line) => line.slice(time.length + 1, time.length + 9).trim()),
    ['stdout P', 'stdout F', ''],
  );
});

test('encodeRecords() divides what is many times as large as its output, and counts the output of each part', () => {
  const bytes = Buffer.alloc(64 * 1024, '\n');
  const batches = [...encodeRecords({ stream: 'stdout', bytes }, time)];
  assert.ok(batches.every(({ records }) => records.length <= 1024 * 1024));
  assert.equal(
    batches.reduce((sum, batch) => sum + batch.bytes, 0),
    bytes.length,
  );
  assert.equal(
    Buffer.concat(batches.map(({ records }) => records)).toString(),
    `${time} stdout F \n`.repeat(64 * 1024),
  );
});

test('decodeRecord() returns every byte of any output', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }), (chunks) => {
      const file = Buffer.concat(chunks.map((bytes) => encoded({ stream: 'stdout', bytes })));
      const decoded: Uint8Array[] = [];
      let from = 0;
      for (let end = file.indexOf(10); end >= 0; end = file.indexOf(10, from)) {
        decoded.push(decodeRecord(file.subarray(from, end))?.bytes ?? Buffer.of());
        from = end + 1;
      }
      assert.deepEqual(Buffer.concat(decoded), Buffer.concat(chunks));
    }),
  );
});

test('decodeRecord() rejects lines that are not records', () => {
  for (const line of ['', 'x', `${time} stdout`, `${time} stdin F x`, `${time} stdout Q x`, ' stdout F x']) {
    assert.equal(decodeRecord(Buffer.from(line)), undefined, line);
  }
});

test('countRecords() counts what decodeRecord() accepts, and ignores other lines', () => {
  const words = [
    '2026-01-01T00:00:00.000000000Z',
    '',
    ' ',
    'stdout',
    'stderr',
    'stdoat',
    'F',
    'P',
    'Fx',
    'a b',
    '\u00e4',
  ];
  const line = fc.oneof(
    fc.array(fc.constantFrom(...words), { maxLength: 6 }).map((parts) => parts.join(' ')),
    fc
      .tuple(fc.constantFrom('stdout', 'stderr'), fc.constantFrom('F', 'P'), fc.string())
      .map(([stream, tag, text]) => `2026-01-01T00:00:00.000000000Z ${stream} ${tag} ${text.replaceAll('\n', '')}`),
  );
  fc.assert(
    fc.property(fc.array(line), fc.constantFrom('', 'torn'), (lines, rest) => {
      const whole = lines.map((each) => `${each}\n`).join('');
      const wanted = { stdout: 0, stderr: 0 };
      for (const each of lines) {
        const record = decodeRecord(Buffer.from(each));
        if (record !== undefined) wanted[record.stream] += record.bytes.length;
      }
      const counts = { stdout: 0, stderr: 0 };
      assert.equal(countRecords(Buffer.from(whole + rest), counts), Buffer.byteLength(whole));
      assert.deepEqual(counts, wanted);
    }),
  );
});

test('createNanoClock() has nine digits, and goes backwards only when the date is set back', () => {
  let [nowMs, ns] = [1_700_000_000_000, 5n];
  const clock = createNanoClock(
    () => nowMs,
    () => ns,
  );
  assert.equal(clock(), '2023-11-14T22:13:20.000000000Z');
  ns += 1n;
  assert.equal(clock(), '2023-11-14T22:13:20.000000001Z');
  nowMs -= 400;
  ns += 1n;
  assert.equal(clock(), '2023-11-14T22:13:20.000000002Z');
  nowMs += 3_600_000;
  assert.equal(clock(), '2023-11-14T23:13:19.600000000Z');
  nowMs -= 7_200_000;
  ns += 7n;
  assert.equal(clock(), '2023-11-14T21:13:19.600000000Z');
  ns += 7n;
  assert.equal(clock(), '2023-11-14T21:13:19.600000007Z');
});

test('readLog() reports a missing log', async () => {
  await using place = await directory();
  await assert.rejects(textOf(place.log), (error) => error instanceof PodvmError && error.kind === 'notFound');
});

test('readLog() skips a line that a crash truncated', async () => {
  await using place = await directory();
  await writeFile(place.log, `${time} stdout F one\n2026-11-2\n${time} stdout F two\n`);
  assert.equal(await textOf(place.log), 'one\ntwo\n');
});

test('the log is rotated and bounded, and read in order across its files', async () => {
  await using place = await directory();
  const limits = { maxFileBytes: 1000, maxFiles: 3 };
  await using writer = await openLogWriter(place.log, () => time, { limits });
  for (let n = 0; n < 200; n += 1) await writer.write(chunkOf(`line ${n}\n`));
  const files = await readdir(place.path);
  assert.equal(files.length, limits.maxFiles);
  for (const file of files) assert.ok((await stat(join(place.path, file))).size <= limits.maxFileBytes);
  const lines = (await textOf(place.log)).trimEnd().split('\n');
  assert.equal(lines.at(-1), 'line 199');
  const first = Number(lines[0]?.slice(5));
  assert.deepEqual(
    lines,
    lines.map((_, n) => `line ${first + n}`),
  );
});

test('a reopened writer continues where the last one stopped', async () => {
  await using place = await directory();
  const limits = { maxFileBytes: 100, maxFiles: 3 };
  for (const text of ['a\n', 'b\n', 'c\n']) {
    await using writer = await openLogWriter(place.log, () => time, { limits });
    await writer.write(chunkOf(text));
  }
  assert.deepEqual(await rotatedNumbers(place.log), [1]);
  assert.equal(await textOf(place.log), 'a\nb\nc\n');
});

test('reopen() continues in a new file after the old one was renamed, and loses nothing', async () => {
  await using place = await directory();
  await using writer = await openLogWriter(place.log, () => time);
  const first = writer.write(chunkOf('before\n'));
  await first;
  await rename(place.log, `${place.log}.old`);
  const between = writer.write(chunkOf('between\n'));
  await writer.reopen();
  await Promise.all([between, writer.write(chunkOf('after\n'))]);
  assert.equal(await textOf(`${place.log}.old`), 'before\nbetween\n');
  assert.equal(await textOf(place.log), 'after\n');
});

test('readLog() returns the last lines across rotated files, including an unfinished one', async () => {
  await using place = await directory();
  await using writer = await openLogWriter(place.log, () => time, { limits: { maxFileBytes: 200, maxFiles: 9 } });
  for (let n = 0; n < 20; n += 1) await writer.write(chunkOf(`${n}\n`));
  await writer.write(chunkOf('rest'));
  assert.equal(await textOf(place.log, { tailLines: 3 }), '18\n19\nrest');
  assert.equal(await textOf(place.log, { tailLines: 0 }), '');
  assert.equal((await textOf(place.log, { tailLines: 100 })).split('\n').length, 21);
});

test('readLog() follows across rotations, loses nothing, and ends with the container', async () => {
  await using place = await directory();
  await using writer = await openLogWriter(place.log, () => time, { limits: { maxFileBytes: 2000, maxFiles: 1000 } });
  const ended = Promise.withResolvers<void>();
  const reading = textOf(place.log, { follow: true, ended: ended.promise });
  let written = '';
  for (let n = 0; n < 1000; n += 1) {
    const text = `${n} ${'x'.repeat(n % 50)}\n`;
    await writer.write(chunkOf(text));
    written += text;
  }
  ended.resolve();
  assert.equal(await reading, written);
});

test('readLog() waits for the next file while the log is being rotated', async () => {
  await using place = await directory();
  {
    await using writer = await openLogWriter(place.log, () => time);
    await writer.write(chunkOf('before\n'));
  }
  await rename(place.log, `${place.log}.1`);
  const ended = Promise.withResolvers<void>();
  const reading = textOf(place.log, { follow: true, ended: ended.promise });
  assert.equal(await within(reading, { ms: 50 }), undefined); // it has not ended
  await using writer = await openLogWriter(place.log, () => time);
  await writer.write(chunkOf('after\n'));
  ended.resolve();
  assert.equal(await reading, 'before\nafter\n');
});

test('readLog() stops following on abort', async () => {
  await using place = await directory();
  await using writer = await openLogWriter(place.log, () => time, { limits: roomy });
  await writer.write(chunkOf('one\n'));
  const stop = new AbortController();
  const records = readLog(place.log, { follow: true }, stop.signal);
  assert.equal(Buffer.from((await records.next()).value?.bytes ?? []).toString(), 'one\n');
  const next = records.next();
  stop.abort();
  assert.equal((await next).done, true);
});

/** A file system of 64 KiB. */
async function smallDisk() {
  const path = await mkdtemp(join(tmpdir(), 'podvm-small-'));
  await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'podvm-test', path]);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await run('umount', [path]);
      await rm(path, { recursive: true });
    },
  };
}

const skip = process.getuid?.() === 0 ? false : 'needs root';

test('a log on a full disk continues when there is space, and records what is missing', { skip }, async () => {
  await using disk = await smallDisk();
  const log = join(disk.path, '0.log');
  await using writer = await openLogWriter(log, () => time);
  await writer.write(chunkOf('before\n'));
  await assert.rejects(writeFile(join(disk.path, 'ballast'), Buffer.alloc(64 * 1024)), { code: 'ENOSPC' });
  const large = chunkOf(`${'x'.repeat(8000)}\n`.repeat(4));
  await assert.rejects(writer.write(large), { kind: 'exhausted' });
  await assert.rejects(writer.write(large), { kind: 'exhausted' });
  await rm(join(disk.path, 'ballast'));
  await writer.write(chunkOf('after\n'));
  assert.equal(await textOf(log), 'before\npodvm: 64008 bytes of output are missing here: the disk was full\nafter\n');
});
