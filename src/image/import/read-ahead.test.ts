import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ReadAhead } from './read-ahead.ts';

const textOf = async (chunks: AsyncIterable<Buffer>) => {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts).toString();
};

/** Counts what was taken from it, and whether its reader let it go. */
class Source {
  taken = 0;
  isClosed = false;
  readonly #count: number;
  readonly #error: Error | undefined;

  constructor(count: number, error?: Error) {
    this.#count = count;
    this.#error = error;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    try {
      for (; this.taken < this.#count; await turn()) yield Buffer.from(String((this.taken += 1) % 10));
      if (this.#error !== undefined) throw this.#error;
    } finally {
      this.isClosed = true;
    }
  }
}

/** Lets a source continue as far as it can. */
const manyTurns = async () => {
  for (let at = 0; at < 50; at += 1) await turn();
};

test('ReadAhead takes bytes before they are asked for, up to its limit, and yields all in order', async () => {
  const source = new Source(25);
  using ahead = new ReadAhead(source, 10);
  await manyTurns();
  assert.equal(source.taken, 10);
  assert.equal(await textOf(ahead), '1234567890123456789012345');
  assert.ok(source.isClosed);
});

test('ReadAhead yields what came before an error, and then throws it', async () => {
  using ahead = new ReadAhead(new Source(3, new Error('torn')), 10);
  await manyTurns();
  const chunks = ahead[Symbol.asyncIterator]();
  for (const digit of ['1', '2', '3']) assert.equal((await chunks.next()).value?.toString(), digit);
  await assert.rejects(chunks.next(), { message: 'torn' });
});

test('ReadAhead lets its source go when it is disposed, read or not', async () => {
  const source = new Source(1e9);
  {
    using ahead = new ReadAhead(source, 10);
    assert.equal((await ahead[Symbol.asyncIterator]().next()).value?.toString(), '1');
  }
  await manyTurns();
  assert.ok(source.isClosed);
  const unread = new Source(1e9);
  new ReadAhead(unread, 10)[Symbol.dispose]();
  await manyTurns();
  assert.ok(unread.isClosed);
});
