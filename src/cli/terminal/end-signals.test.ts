import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, it } from 'node:test';
import { catchEndSignals } from './end-signals.ts';

describe('catchEndSignals()', () => {
  const outputGone = new AbortController().signal;

  it('ignores SIGHUP under nohup', () => {
    const source = new EventEmitter();
    using ends = catchEndSignals(source, { outputGone }, true);
    assert.equal(source.emit('SIGHUP'), true);
    assert.equal(ends.any.aborted, false);
    source.emit('SIGTERM');
    assert.equal(ends.exitCode, 143);
  });

  it('passes each signal to listeners, and has the exit code of the first', () => {
    const source = new EventEmitter();
    using ends = catchEndSignals(source, { outputGone }, false);
    const heard: string[] = [];
    const leave = ends.listen((signal) => heard.push(signal));
    for (const signal of ['SIGHUP', 'SIGHUP', 'SIGINT']) source.emit(signal);
    leave();
    source.emit('SIGINT');
    assert.deepEqual(heard, ['SIGHUP', 'SIGHUP', 'SIGINT']);
    assert.equal(ends.exitCode, 129);
  });
});
