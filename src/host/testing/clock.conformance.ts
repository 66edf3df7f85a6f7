import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, deadlineAfter, pause } from '../clock.ts';

export interface ClockHarness {
  readonly clock: Clock;
  /** Resolves when at least that much time has passed and the actions due by then have run. */
  readonly pass: (ms: number) => Promise<void>;
}

/** A timer of the system may fire early by the fraction of a millisecond that `monotonicMs` leaves out. */
const roundingMs = 1;

/** Conformance tests of a clock, for the system's and for those of tests. */
export function describeClock(name: string, open: () => ClockHarness): void {
  describe(`the clock: ${name}`, () => {
    it('passes in whole milliseconds, the date as well', async () => {
      const { clock, pass } = open();
      const [date, began] = [clock.now(), clock.monotonicMs()];
      await pass(20);
      assert.ok(Number.isInteger(clock.monotonicMs()));
      assert.ok(clock.monotonicMs() - began >= 20 - roundingMs);
      assert.ok(clock.now() - date >= 20 - roundingMs);
    });

    it('calls an action once, later, and not before its time', async () => {
      const { clock, pass } = open();
      const began = clock.monotonicMs();
      const calls: string[] = [];
      let calledMs = 0;
      clock.after(20, () => {
        calls.push('later');
        calledMs = clock.monotonicMs() - began;
      });
      clock.after(0, () => calls.push('none'));
      clock.after(-5, () => calls.push('past'));
      assert.deepEqual(calls, []);
      await pass(40);
      await pass(20);
      assert.deepEqual(calls, ['none', 'past', 'later']);
      assert.ok(calledMs >= 20 - roundingMs, `${calledMs}`);
    });

    it('calls actions by their times, and those of one time as they were set', async () => {
      const { clock, pass } = open();
      const calls: string[] = [];
      clock.after(20, () => calls.push('third'));
      clock.after(10, () => {
        calls.push('first');
        clock.after(1, () => calls.push('second'));
      });
      clock.after(20, () => calls.push('fourth'));
      await pass(60);
      assert.deepEqual(calls.toSorted(), ['first', 'fourth', 'second', 'third']);
      assert.ok(calls.indexOf('first') < calls.indexOf('second'));
      assert.ok(calls.indexOf('first') < calls.indexOf('third'));
      assert.ok(calls.indexOf('third') < calls.indexOf('fourth'));
    });

    it('calls nothing that was called off, whenever that was', async () => {
      const { clock, pass } = open();
      const calls: string[] = [];
      const off = clock.after(10, () => calls.push('called off'));
      const late = clock.after(5, () => calls.push('called'));
      off();
      off();
      await pass(30);
      late();
      assert.deepEqual(calls, ['called']);
    });

    it('makes pauses and deadlines, which end early by their signals', async () => {
      const { clock, pass } = open();
      const never = new AbortController().signal;
      const over: string[] = [];
      const abort = new AbortController();
      void pause(clock, 10, never).then(() => over.push('pause'));
      const short = pause(clock, 1_000_000, abort.signal);
      using deadline = deadlineAfter(clock, 10, never);
      using other = deadlineAfter(clock, 1_000_000, abort.signal);
      await pass(30);
      assert.deepEqual(over, ['pause']);
      assert.equal(deadline.signal.reason instanceof DOMException && deadline.signal.reason.name, 'TimeoutError');
      assert.equal(other.signal.aborted, false);
      const reason = new Error('over');
      abort.abort(reason);
      await short;
      assert.equal(other.signal.reason, reason);
    });
  });
}
