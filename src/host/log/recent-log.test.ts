import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from './log.ts';
import { keepRecent } from './recent-log.ts';

test('keeps what the log leaves out, with its fields, and passes everything on', () => {
  const written: string[] = [];
  const recent = keepRecent(createLog('warn', (line) => void written.push(line)));
  const log = recent.log.with({ pod: 'web' });
  log.debug('detail');
  log.info('started', { ms: 7 });
  log.warn('slow');
  log.error('failed', new Error('why'));
  const withoutTime = (text: string) => text.replaceAll(/^\S+ /gm, '');
  assert.equal(
    withoutTime(recent.text()),
    'info started pod=web ms=7\nwarn slow pod=web\nerror failed pod=web err=why\n',
  );
  assert.equal(withoutTime(written.join('')), 'warn slow pod=web\nerror failed pod=web err=why\n');
});

test('keeps the last lines within its bound', () => {
  const recent = keepRecent(createLog('silent', () => {}));
  for (let n = 0; n < 3000; n += 1) recent.log.info('x'.repeat(200), { n });
  assert.ok(recent.text().length <= 256 * 1024);
  assert.match(recent.text(), / n=2999\n$/);
  assert.doesNotMatch(recent.text(), / n=100\n/);
});
