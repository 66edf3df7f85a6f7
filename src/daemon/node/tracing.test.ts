import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from '#host/log/log.ts';
import { spanContextOf, stepRecorder, traced } from '#host/log/tracing.ts';
import { heldMemory } from '../../../test/held-memory.ts';
import { openCollector } from '../../../test/trace-collector.ts';
import { openTracing } from './tracing.ts';

const log = createLog('silent', () => {});
const caller = (flags: string) => spanContextOf(`00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-${flags}`);

test('spans reach a collector with their parents, kinds, times and errors, unless the caller samples none', async () => {
  await using collector = await openCollector();
  {
    await using _tracing = await openTracing(collector.url, '1.2.3', log);
    const failing = traced({ name: 'call', caller: caller('01'), isServer: true }, async () => {
      stepRecorder()?.('step', 5);
      throw new Error('why');
    });
    await assert.rejects(failing, /why/);
    await traced({ name: 'not sampled', caller: caller('00') }, async () => stepRecorder()?.('nor this', 1));
  }
  const [step, call] = collector.spans;
  assert.deepEqual(
    collector.spans.map(({ name }) => name),
    ['step', 'call'],
  );
  assert.ok(step && call);
  assert.equal(call.traceId, '0af7651916cd43dd8448eb211c80319c');
  assert.equal(call.parentSpanId, 'b7ad6b7169203331');
  assert.deepEqual([call.kind, call.status], [2, { code: 2, message: 'why' }]);
  assert.deepEqual([step.traceId, step.parentSpanId, step.kind], [call.traceId, call.spanId, 1]);
  assert.equal(Math.round((step.endTimeUnixNano - step.startTimeUnixNano) / 1e6), 5);
});

test('messages and attributes of spans are cut, whatever a guest or a registry says', async () => {
  await using collector = await openCollector();
  {
    await using _tracing = await openTracing(collector.url, '1.2.3', log);
    const attributes = { pod: 'p'.repeat(100_000) };
    const failing = traced({ name: 'call', attributes }, () => Promise.reject(new Error('🙂'.repeat(100_000))));
    await assert.rejects(failing);
  }
  const [call] = collector.spans;
  const { message = '' } = call?.status ?? {};
  assert.ok(message.startsWith('🙂') && message.endsWith('…') && message.isWellFormed());
  assert.ok(message.length <= 1024, String(message.length));
  assert.deepEqual(call?.attributes, [{ key: 'pod', value: { stringValue: 'p'.repeat(1024) } }]);
});

test('a collector that cannot be reached costs nothing but the spans', async () => {
  const tracing = await openTracing('http://127.0.0.1:9', '1.2.3', log);
  const spans = 20_000; // ten times what may wait
  const before = heldMemory();
  for (let n = 0; n < spans; n += 1) await traced({ name: 'call' }, async () => {});
  const grownBytes = heldMemory() - before;
  assert.ok(grownBytes < 8_000_000, `${grownBytes} bytes more are held`);
  const endingMs = performance.now();
  await tracing[Symbol.asyncDispose]();
  assert.ok(performance.now() - endingMs < 5_000);
});
