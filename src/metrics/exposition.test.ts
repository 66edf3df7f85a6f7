import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { Histogram } from '#base/histogram.ts';
import { Exposition, formatFor, type Format, writeSubject } from './exposition.ts';
import { rowsOf } from './metric-row.ts';
import { anyUnicode } from '../../test/any-unicode.ts';

interface Thing {
  readonly size: number;
  readonly name: string;
}

const { counter, gauge, each, histograms } = rowsOf<Thing>();
const rows = {
  thing_size_bytes: gauge('bytes', 'Size of "it"', ({ size }) => size),
  thing_uses_total: counter('count', 'Uses', ({ size }) => size * 2),
  thing_failcnt: counter('count', 'Failures', () => 3n),
  thing_parts: each('gauge', ['part'], 'count', 'Parts', ({ name }) => [
    { labels: [name], value: 1 },
    { labels: [name], value: 2 },
  ]),
  thing_seconds: histograms([], 'seconds', 'Time', () => {
    const histogram = new Histogram([0.1, 1]);
    for (const seconds of [0.05, 0.1, 0.5, 7]) histogram.observe(seconds);
    return [{ labels: [], value: histogram.reading }];
  }),
  thing_absent: gauge('count', 'What does not apply', () => undefined),
};

function written(format: Format, ...things: readonly Thing[]): string {
  const exposition = new Exposition(format);
  const table = Object.entries(rows);
  const subjects = things.map((subject) => ({ subject, labels: [subject.name, ''] }));
  exposition.add(
    table,
    subjects.map((each) => writeSubject(table, ['name', 'other'], each)),
  );
  return exposition.toString();
}

test('values are written once per series in Prometheus’ format, with non-empty labels only', () => {
  assert.equal(
    written('prometheus', { size: 1.5, name: 'a' }),
    [
      '# HELP thing_size_bytes Size of "it", in bytes.',
      '# TYPE thing_size_bytes gauge',
      'thing_size_bytes{name="a"} 1.5',
      '# HELP thing_uses_total Uses.',
      '# TYPE thing_uses_total counter',
      'thing_uses_total{name="a"} 3',
      '# HELP thing_failcnt Failures.',
      '# TYPE thing_failcnt counter',
      'thing_failcnt{name="a"} 3',
      '# HELP thing_parts Parts.',
      '# TYPE thing_parts gauge',
      'thing_parts{name="a",part="a"} 1',
      '# HELP thing_seconds Time, in seconds.',
      '# TYPE thing_seconds histogram',
      'thing_seconds_bucket{name="a",le="0.1"} 2',
      'thing_seconds_bucket{name="a",le="1.0"} 3',
      'thing_seconds_bucket{name="a",le="+Inf"} 4',
      'thing_seconds_sum{name="a"} 7.65',
      'thing_seconds_count{name="a"} 4',
      '',
    ].join('\n'),
  );
});

test('OpenMetrics names a counter’s family without its suffix, and ends with EOF', () => {
  const text = written('openMetrics', { size: 1, name: 'a' });
  assert.match(text, /^# HELP thing_size_bytes Size of \\"it\\", in bytes\.$/m);
  assert.match(text, /^# TYPE thing_uses counter\nthing_uses_total\{name="a"\} 2$/m);
  assert.match(text, /^# TYPE thing_failcnt unknown\nthing_failcnt\{name="a"\} 3$/m);
  assert.ok(text.endsWith('# EOF\n'));
  assert.equal(formatFor('application/openmetrics-text;version=1.0.0,text/plain;q=0.5'), 'openMetrics');
  assert.equal(formatFor('*/*'), 'prometheus');
  assert.equal(formatFor(undefined), 'prometheus');
});

test('a hostile name creates no line, label or series', () => {
  const hostile = 'x"} 1\nthing_forged{a="\\';
  const text = written('prometheus', { size: 1, name: hostile });
  assert.ok(!/^thing_forged/m.test(text));
  assert.match(text, /^thing_size_bytes\{name="x\\"\} 1\\nthing_forged\{a=\\"\\\\"\} 1$/m);
  fc.assert(
    fc.property(anyUnicode({ maxLength: 2000 }), (name) => {
      const lines = written('prometheus', { size: 1, name }).trimEnd().split('\n');
      assert.equal(lines.length, 19);
      for (const line of lines) assert.match(line, /^(# |thing_)/);
    }),
  );
});

test('promtool accepts the output, also with hostile names', { skip: whyNoPromtool() }, () => {
  const names = ['a', 'x"} 1\nb{a="\\', '\u{1f980}\ud800', 'c\r\t\0'];
  const text = written('prometheus', ...names.map((name, size) => ({ size, name })));
  const { status, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  // promtool also judges names, of which these are only examples; it ends with another code for a text that it cannot
  // read.
  assert.ok(status === 0 || status === 3, stderr);
  assert.ok(!/error while linting/.test(stderr), stderr);
});

function whyNoPromtool(): string | false {
  return spawnSync('promtool', ['--version']).status === 0 ? false : 'needs the packages of test/host-packages.txt';
}
