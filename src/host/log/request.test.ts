import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { createLog, goesToJournal, type LogStyle } from './log.ts';
import { asRequest, currentRequest, requestIdOf } from './request.ts';

function lines(style: LogStyle) {
  const written: string[] = [];
  return { written, log: createLog('info', (line) => written.push(line), style) };
}

test('each log line of a call has its id, also among concurrent calls, and background work has none', async () => {
  const { written, log } = lines({ format: 'text', hasPriority: false });
  const left = Promise.withResolvers<void>();
  const after: Promise<void>[] = [];
  const call = async (id: string) => {
    log.info('begins');
    await setImmediate();
    log.with({ pod: id }).info('goes on');
    after.push(left.promise.then(() => log.info('runs later')));
  };
  await Promise.all(['a', 'b'].map((id) => asRequest(id, () => call(id))));
  left.resolve();
  await Promise.all(after);
  assert.deepEqual(
    written.map((line) => line.replace(/^\S+ info /, '').trim()),
    [
      'begins request=a',
      'begins request=b',
      'goes on pod=a request=a',
      'goes on pod=b request=b',
      'runs later',
      'runs later',
    ],
  );
  await assert.rejects(
    asRequest('c', () => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(currentRequest(), undefined);
});

test('log lines are JSON on request, one object each, without replaced fields', () => {
  const { written, log } = lines({ format: 'json', hasPriority: false });
  log.info('a "quoted"\nevent', { level: 'forged', pod: 'default/web', count: 3, absent: undefined });
  log.error('failed', new Error('why'));
  assert.ok(written.every((line) => line.endsWith('\n') && line.indexOf('\n') === line.length - 1));
  const [first, second] = written.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.match(String(first?.['time']), /^\d{4}-\d\d-\d\dT/);
  const { time: _, ...rest } = first ?? {};
  assert.deepEqual(rest, { level: 'info', event: 'a "quoted"\nevent', pod: 'default/web', count: 3 });
  assert.deepEqual([second?.['level'], second?.['err']], ['error', 'why']);
});

test('the journal receives the priority of each line', () => {
  const { written, log } = lines({ format: 'json', hasPriority: true });
  log.warn('short of memory');
  log.info('serving');
  assert.deepEqual(
    written.map((line) => line.slice(0, 4)),
    ['<4>{', '<6>{'],
  );
  const at = { dev: 7n, ino: 99n };
  assert.equal(goesToJournal({ JOURNAL_STREAM: '7:99' }, at), true);
  assert.equal(goesToJournal({ JOURNAL_STREAM: '7:98' }, at), false);
  assert.equal(goesToJournal({}, at), false);
});

test('a call has the id of its caller’s trace, or its own', () => {
  const trace = '0af7651916cd43dd8448eb211c80319c';
  assert.equal(requestIdOf(`00-${trace}-b7ad6b7169203331-01`), trace);
  for (const header of [
    undefined,
    '',
    'x',
    `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
    `00-${trace}`,
    Buffer.from('x'),
  ])
    assert.match(requestIdOf(header), /^[0-9a-f]{16}$/);
  assert.notEqual(requestIdOf(undefined), requestIdOf(undefined));
});
