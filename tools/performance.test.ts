import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import * as v from 'valibot';
import { performanceDrawing } from '../bench/versus/drawing.ts';
import { judge } from '../bench/versus/judge.ts';
import { performancePage } from '../bench/versus/page.ts';
import { keptRows, ratioOf, type Result, resultSchema, spreadOf } from '../bench/versus/result.ts';

const docs = join(import.meta.dirname, '../docs');
const written = v.parse(resultSchema, JSON.parse(await readFile(join(docs, 'performance.json'), 'utf8')));

const resultOf = (rows: Result['rows']): Result => ({ ...written, rows });

describe('docs/performance.md and its picture', () => {
  it('say what docs/performance.json has', async () => {
    const hint = 'run `npm run docs`, which writes them';
    assert.equal(await readFile(join(docs, 'performance.md'), 'utf8'), await performancePage(written), hint);
    assert.equal(await readFile(join(docs, 'performance.svg'), 'utf8'), performanceDrawing(written), hint);
  });

  it('mark a target that is missed, and name a row that failed', async () => {
    const values = { fromScratchMs: { podvm: [200, 300, 400], cold: [280, 290, 310], containerd: [100, 100, 100] } };
    const page = await performancePage(resultOf({ pod: { seconds: 9, values, failure: 'no such\npod' } }));
    assert.match(page, /\| PodVM +\| 3 \(2\.5-3\.5\) × +\| ≤ 1\.25 × containerd, runc \| \*\*missed\*\* \|/);
    assert.match(page, /\| PodVM, no machine waiting \| 2\.9 \(2\.85-3\) × +\| ≤ 3 × containerd, runc +\| met +\|/);
    assert.match(page, /^- `pod` failed: no such pod$/m);
    assert.match(page, /Not measured in this run: `start`, `exec`/);
  });
});

describe('performancePage()', () => {
  const { loadBefore: _load, busyBefore: _busy, ...facts } = written.machine;
  const pageOf = (before: Partial<Result['machine']>) =>
    performancePage({ ...resultOf({}), machine: { ...facts, ...before } });

  it('says whether the processors were busy before, of older results whether the load was high', async () => {
    assert.match(await pageOf({ busyBefore: 0.02 }), /The machine was idle otherwise/);
    assert.match(
      await pageOf({ busyBefore: 0.6 }),
      /had other work\*\*: its processors were busy 60 % of the time before/,
    );
    assert.match(await pageOf({ loadBefore: 0.2 }), /The machine was idle otherwise/);
    assert.match(await pageOf({ loadBefore: 0.8 }), /had other work\*\*: its load average was 0\.8 before/);
  });
});

describe('keptRows()', () => {
  const row = { seconds: 1, values: { execSyncMs: { podvm: [20] } } };
  const before = resultOf({ exec: row, pod: { ...row, failure: 'no such pod' } });

  it('keeps rows that did not fail, whatever else the machine did', () => {
    const now = { ...before, machine: { ...before.machine, busyBefore: 0.9, loadBefore: 9 } };
    assert.deepEqual(keptRows(before, now), { exec: row });
  });

  it('keeps nothing of other versions, or of another number of rounds', () => {
    assert.deepEqual(keptRows(before, { ...before, versions: { ...before.versions, PodVM: 'another' } }), {});
    assert.deepEqual(keptRows(before, { ...before, rounds: before.rounds + 1 }), {});
  });
});

describe('spreadOf()', () => {
  it('interpolates quartiles, and has none of no values', () => {
    assert.deepEqual(spreadOf([4, 1, 3, 2]), { median: 2.5, from: 1.75, to: 3.25 });
    assert.deepEqual(spreadOf([7]), { median: 7, from: 7, to: 7 });
    assert.equal(spreadOf([]), undefined);
  });
});

describe('ratioOf()', () => {
  it('divides medians, and takes its quartiles from rounds that were measured next to each other', () => {
    // The machine was twice as slow in the second round, for both.
    assert.deepEqual(ratioOf([10, 20, 10], [5, 10, 5]), { median: 2, from: 2, to: 2 });
    assert.equal(ratioOf([1], []), undefined);
  });
});

describe('judge()', () => {
  it('takes a rate that is too low, and a time that is too long, as missed', () => {
    const verdicts = judge(
      resultOf({
        logs: { seconds: 1, values: { logMBps: { podvm: [20], containerd: [200] } } },
        exec: { seconds: 1, values: { execSyncMs: { podvm: [20], containerd: [40] } } },
      }),
    );
    assert.deepEqual(
      verdicts.map(({ row, measured, target, isMet }) => [row, measured, target, isMet]),
      [
        ['exec', '0.5 ×', '≤ 1.5 × containerd, runc', true],
        ['exec', '20 ms', '≤ 25 ms', true],
        ['logs', '20 MB/s', '≥ 80 MB/s', false],
      ],
    );
  });

  it('compares two figures of one contestant, and names a target whose figures were not measured', () => {
    const podToPod = { podvm: [4, 6, 5], containerd: [50, 50, 50] };
    const judged = (values: Readonly<Record<string, Readonly<Record<string, number[]>>>>) =>
      judge(resultOf({ net: { seconds: 1, values } })).map(({ measured, target, isMet }) => [measured, target, isMet]);
    const target = '≥ 0.5 × TCP, over a veth within a pod';
    const overVeth = { podvm: [8, 12, 9], containerd: [50, 50, 50] };
    assert.deepEqual(judged({ podToPod, overVeth }), [['0.556 (0.5-0.528) ×', target, true]]);
    assert.deepEqual(judged({ podToPod }), [['–', target, undefined]]);
  });
});
