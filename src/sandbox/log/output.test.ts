import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import type { LogWriter } from './log-writer.ts';
import { pumpOutput } from './output.ts';
import type { OutputChunk } from '../sandbox.ts';

const unexpected = (error: unknown): never => assert.fail(String(error));

function memoryLog(fails = false): LogWriter & { readonly chunks: OutputChunk[] } {
  const chunks: OutputChunk[] = [];
  return {
    chunks,
    async write(chunk) {
      if (fails) throw new Error('disk full');
      chunks.push(chunk);
    },
    async [Symbol.asyncDispose]() {},
  };
}

const textOf = (chunks: readonly OutputChunk[]) => Buffer.concat(chunks.map(({ bytes }) => bytes)).toString();
const source = (...texts: string[]) => Readable.from(texts.map((text) => Buffer.from(text)));

test('pumpOutput() delivers every byte to the log and to each follower, in order', async () => {
  const log = memoryLog();
  const output = pumpOutput({ stdout: source('a', 'b', 'c') }, log, unexpected);
  const followed: OutputChunk[] = [];
  const follower = output.follow(async (chunk) => void followed.push(chunk));
  await Promise.all([output.ended, follower.ended]);
  assert.equal(textOf(log.chunks), 'abc');
  assert.equal(textOf(followed), 'abc');
});

test('pumpOutput() reads no further while a follower is busy', async () => {
  let produced = 0;
  const plenty = new Readable({
    highWaterMark: 1024,
    read() {
      produced += 1024;
      this.push(produced > 64 * 1024 ? null : Buffer.alloc(1024));
    },
  });
  const output = pumpOutput({ stdout: plenty }, memoryLog(), unexpected);
  const follower = output.follow(() => new Promise(() => {}));
  for (let n = 0; n < 100; n += 1) await turn();
  assert.ok(produced <= 8 * 1024, `took ${produced} bytes`);

  follower.stop(); // releases the output that it held back
  await Promise.all([follower.ended, output.ended]);
  assert.ok(produced > 64 * 1024);
});

test('a failing follower stops without affecting the others', async () => {
  const log = memoryLog();
  const output = pumpOutput({ stdout: source('a', 'b') }, log, unexpected);
  const follower = output.follow(() => Promise.reject(new Error('terminal gone')));
  await Promise.all([output.ended, follower.ended]);
  assert.equal(textOf(log.chunks), 'ab');
});

test('a log that cannot be written is reported once per outage, and followers still get everything', async () => {
  const problems: unknown[] = [];
  const output = pumpOutput({ stdout: source('a', 'b') }, memoryLog(true), (error) => problems.push(error));
  const followed: OutputChunk[] = [];
  const follower = output.follow(async (chunk) => void followed.push(chunk));
  await follower.ended;
  assert.equal(problems.length, 1);
  assert.equal(textOf(followed), 'ab');
});

test('output ends when the link is lost, and following ended output returns at once', async () => {
  const broken = new Readable({ read() {} });
  const output = pumpOutput({ stdout: broken, stderr: source('e') }, memoryLog(), unexpected);
  broken.destroy(new Error('link lost'));
  await output.ended;
  await output.follow(async () => {}).ended;
});
