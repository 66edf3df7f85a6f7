import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import {
  type Expectations,
  expectationsOf,
  judge,
  leftOutPattern,
  parseExpectations,
  parseGinkgoReport,
  type Spec,
} from './report.ts';

const expected: Expectations = {
  leftOut: [{ spec: 'Image by digest [Conformance]', reason: 'its bytes are not available' }],
  maySkip: [{ spec: 'AppArmor *', reason: 'the host has none' }],
  refused: [{ spec: 'Mount with rshared', reason: 'cannot be in a VM', says: 'cannot appear on the host' }],
};

const spec = (name: string, outcome: Spec['outcome'], message = ''): Spec => ({ name, outcome, message, ms: 1 });
const fine = [
  spec('Exec works', 'passed'),
  spec('Image by digest [Conformance]', 'skipped'),
  spec('AppArmor blocks writes', 'skipped', 'no AppArmor here'),
  spec('Mount with rshared', 'failed', 'Cannot mount: it cannot appear on the host\nand a stack'),
];

test('judge() is content with what the list says, and counts it', () => {
  assert.deepEqual(judge(fine, expected, true), {
    passed: 1,
    failed: 0,
    skipped: 2,
    refused: 1,
    failures: [],
    surprises: [],
  });
});

const surprising: readonly (readonly [string, Spec])[] = [
  ['a failure', spec('Exec fails', 'failed', 'exit code 1\nand a stack')],
  ['a spec that skips itself', spec('Metrics', 'skipped', 'not supported')],
  ['a spec that was not asked to be left out', spec('Attach', 'skipped')],
  ['a host where only the reason of another applies', spec('AppArmor is left out', 'skipped')],
];

for (const [what, one] of surprising) {
  test(`judge() is surprised by ${what} that is not on the list`, () => {
    const { surprises } = judge([...fine, one], expected, true);
    assert.equal(surprises.length, 1);
    assert.ok(surprises[0]?.includes(one.name));
    assert.ok(!surprises[0]?.includes('\n'));
  });
}

test('judge() takes what fails by anything but its refusal for a failure', () => {
  const half = fine.map((one) => (one.outcome === 'failed' ? { ...one, message: 'it is empty' } : one));
  const { failed, refused, failures, surprises } = judge(half, expected, true);
  assert.deepEqual([failed, refused, surprises.length], [1, 0, 1]);
  assert.deepEqual(failures, [{ spec: 'Mount with rshared', message: 'it is empty' }]);
});

test('judge() is surprised by what is to be refused and passes, and by a line that means no spec', () => {
  const passes = fine.map((one) => (one.outcome === 'failed' ? { ...one, outcome: 'passed' as const } : one));
  assert.equal(judge(passes, expected, true).surprises.length, 1);
  assert.equal(judge(fine.slice(0, 3), expected, true).surprises.length, 1);
});

test('judge() minds neither what a focus leaves out, nor the lines about it', () => {
  const part = [spec('Exec works', 'passed'), spec('Attach', 'skipped'), spec('Mount with rshared', 'skipped')];
  assert.deepEqual(judge(part, expected, false).surprises, []);
});

test('parseGinkgoReport() reads names, outcomes and reasons, and failures of set-up and clean-up', () => {
  const report = [
    {
      SpecReports: [
        { ContainerHierarchyTexts: null, LeafNodeText: '', LeafNodeType: 'BeforeSuite', State: 'passed', RunTime: 0 },
        {
          ContainerHierarchyTexts: ['[k8s.io] Streaming', 'runtime'],
          LeafNodeText: 'should exec',
          LeafNodeType: 'It',
          State: 'timedout',
          RunTime: 2_500_000,
          Failure: { Message: 'too late' },
        },
        { LeafNodeText: '', LeafNodeType: 'AfterSuite', State: 'failed', RunTime: 0, Failure: {} },
      ],
    },
  ];
  assert.deepEqual(parseGinkgoReport(JSON.stringify(report)), [
    { name: 'Streaming runtime should exec', outcome: 'failed', message: 'too late', ms: 3 },
    { name: 'AfterSuite', outcome: 'failed', message: '', ms: 0 },
  ]);
  assert.throws(() => parseGinkgoReport('{"specs": []}'));
});

test('leftOutPattern() means the names on the list and no more', () => {
  const pattern = new RegExp(leftOutPattern(expected) ?? '');
  assert.ok(pattern.test('[k8s.io] Image by digest [Conformance]'));
  assert.ok(!pattern.test('Image by digest C'));
});

test('expected.json is a list with a reason on every line', async () => {
  const list = parseExpectations(await readFile(new URL('expected.json', import.meta.url), 'utf8'));
  assert.ok(list.leftOut.length > 0);
});

test('expectationsOf() leaves out lines about specs that an older version does not have', () => {
  const line = (spec: string, since?: string) => ({ spec, reason: 'r', ...(since === undefined ? {} : { since }) });
  const list = { leftOut: [line('old'), line('new', '2.10')], maySkip: [line('mid', '2.4')], refused: [] };
  const names = (version: string) => {
    const { leftOut, maySkip } = expectationsOf(version, list);
    return [...leftOut, ...maySkip].map(({ spec }) => spec);
  };
  assert.deepEqual(names('2.2'), ['old']);
  assert.deepEqual(names('2.4'), ['old', 'mid']);
  assert.deepEqual(names('2.10'), ['old', 'new', 'mid']);
});

test('expectationsOf() leaves out lines that no longer hold for a newer version', () => {
  const line = { spec: 'past', reason: 'r', until: '1.7' };
  const kept = (version: string) =>
    expectationsOf(version, { leftOut: [], maySkip: [line], refused: [] }).maySkip.length;
  assert.deepEqual(['1.6', '1.7', '1.10', '2.2'].map(kept), [1, 1, 0, 0]);
});
