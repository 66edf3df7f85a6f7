import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lastDue, nextDue, whyNotSchedule } from './schedule.ts';

const at = (text: string) => Date.parse(text);
const timeZone = 'Europe/Berlin';

test('nextDue() and lastDue() follow the time zone, also where its clock changes', () => {
  const nightly = { schedule: '30 4 * * *', timeZone };
  assert.equal(nextDue(nightly, at('2026-03-28T12:00Z')), at('2026-03-29T02:30Z'));
  assert.equal(nextDue(nightly, at('2026-03-29T12:00Z')), at('2026-03-30T02:30Z'));
  assert.equal(nextDue(nightly, at('2026-01-01T12:00Z')), at('2026-01-02T03:30Z'));
  assert.equal(lastDue(nightly, at('2026-01-01T12:00Z'), at('2026-01-05T00:00Z')), at('2026-01-04T03:30Z'));
  assert.equal(lastDue(nightly, at('2026-01-04T03:30Z'), at('2026-01-05T00:00Z')), undefined);
  assert.equal(lastDue(nightly, at('2026-01-04T00:00Z'), at('2026-01-04T03:30Z')), at('2026-01-04T03:30Z'));
  const often = { schedule: '*/15 * * * *', timeZone };
  const runs = Array.from({ length: 3 }).reduce<number[]>(
    (all) => [...all, nextDue(often, all.at(-1) ?? 0)],
    [at('2026-10-25T00:45Z')],
  );
  assert.deepEqual(
    runs.slice(1).map((ms) => new Date(ms).toISOString().slice(11, 16)),
    ['01:00', '01:15', '01:30'],
  );
});

test('whyNotSchedule() takes what Kubernetes takes', () => {
  for (const schedule of [
    '0 0 * * *',
    '@daily',
    '*/5 1-4,7 1 jan mon-fri',
    '0 0 1-9/2 * ?',
    '0 0 * * 7',
    ' 0 0 * * 0 ',
  ])
    assert.equal(whyNotSchedule({ schedule }), undefined, schedule);
  for (const schedule of [
    '',
    '@reboot',
    '* * * *',
    '* * * * * *',
    '60 * * * *',
    '0 0 L * *',
    'TZ=UTC * * * * *',
    '0 0 30 2 *',
    '*'.repeat(600),
  ])
    assert.ok(whyNotSchedule({ schedule }) !== undefined, schedule);
  for (const zone of ['Mars/Base', '+02:00', 'x'.repeat(300)])
    assert.match(whyNotSchedule({ schedule: '@daily', timeZone: zone }) ?? '', /time zone/, zone);
});
