import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeExit, type ExitFacts } from './exit-reason.ts';

const facts: ExitFacts = { code: 0, shutdownReason: undefined, killed: false, outOfMemory: false };

test('describeExit() reports stopped only after a request to end or a guest power-off', () => {
  const cases: readonly [Partial<ExitFacts>, 'stopped' | 'failed', RegExp][] = [
    [{ shutdownReason: 'guest-shutdown' }, 'stopped', /guest powered off/],
    [{ shutdownReason: 'host-qmp-quit' }, 'stopped', /told to quit/],
    [{ shutdownReason: 'guest-reset' }, 'failed', /panic/],
    [{ shutdownReason: 'guest-panic' }, 'failed', /panicked/],
    [{ shutdownReason: 'subsystem-reset' }, 'failed', /ended with code 0/],
    [{ code: 137, killed: true }, 'failed', /killed by us/],
    [{ code: 137, outOfMemory: true }, 'failed', /the host killed QEMU: it exceeded/],
    [{ code: 137 }, 'failed', /QEMU was killed by SIGKILL/],
    [{ code: 139 }, 'failed', /SIGSEGV/],
    [{ code: 134 }, 'failed', /SIGABRT/],
    [{ code: 159 }, 'failed', /SIGSYS: .*jail forbids/],
    [{ code: 135 }, 'failed', /^QEMU was killed by SIGBUS: file-backed memory .* truncated .*full$/],
    [{ code: 132 }, 'failed', /SIGILL/],
    [{ code: 136 }, 'failed', /SIGFPE$/],
    [{ code: 128 + 63 }, 'failed', /QEMU was killed by signal 63$/],
    [{ code: 255 }, 'failed', /code 255/],
    [{ code: 'SIGKILL' }, 'failed', /jail was killed by SIGKILL/],
    [{ code: 'unknown' }, 'failed', /QEMU ended/],
    [{ code: 1 }, 'failed', /code 1/],
    [{ code: 0, shutdownReason: '__proto__' }, 'failed', /code 0/],
  ];
  for (const [given, state, reason] of cases) {
    const told = describeExit({ ...facts, ...given });
    assert.equal(told.state, state, JSON.stringify(given));
    assert.match(told.reason, reason, JSON.stringify(given));
  }
});

test('describeExit() reports stopped for a guest that powered off before the kill', () => {
  assert.equal(describeExit({ ...facts, code: 137, shutdownReason: 'guest-shutdown', killed: true }).state, 'stopped');
});

test('describeExit() reports a crash as failed, also after a guest’s request to end', () => {
  for (const shutdownReason of ['guest-shutdown', 'host-qmp-quit', 'guest-reset', 'guest-panic']) {
    for (const [code, name] of [
      [139, /^QEMU was killed by SIGSEGV, after this: /],
      [134, /^QEMU was killed by SIGABRT/],
      [135, /^QEMU was killed by SIGBUS/],
      [1, /^QEMU ended with code 1/],
      ['SIGSEGV', /^QEMU's jail was killed by SIGSEGV/],
    ] as const) {
      const told = describeExit({ ...facts, code, shutdownReason });
      assert.equal(told.state, 'failed');
      assert.match(told.reason, name);
    }
  }
});
