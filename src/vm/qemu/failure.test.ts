import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ErrorKind } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { startFailure } from './failure.ts';

test('startFailure() recognises the messages of QEMU and its jail, and gives a fix', () => {
  const cases: readonly [string, ErrorKind][] = [
    ["qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory", 'exhausted'],
    ['bwrap: Can\u0027t mkdir: No space left on device', 'exhausted'],
    ['qemu: could not configure /dev/net/tun (tap0): Operation not permitted', 'failedPrecondition'],
    ['nsenter: cannot open /run/netns/x: No such file or directory', 'failedPrecondition'],
    ['bwrap: setting up uid map: Permission denied', 'failedPrecondition'],
    ['bwrap: No permissions to create new namespace', 'failedPrecondition'],
    ["bwrap: Can't find source path /boot/vmlinux: No such file or directory", 'failedPrecondition'],
    ["qemu: could not load kernel '/boot/vmlinux': No such file", 'failedPrecondition'],
    ['Could not access KVM kernel module: Permission denied', 'failedPrecondition'],
    ['qemu-system-x86_64: error: failed to set MSR 0x48e to 0xfff9fffe04006172', 'failedPrecondition'],
    ["kvm.c:3877: kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.", 'failedPrecondition'],
    ['KVM: entry failed, hardware error 0x80000021', 'failedPrecondition'],
  ];
  for (const [line, kind] of cases) {
    const error = startFailure('m-1', ['something before', line].map(guestText), undefined);
    assert.equal(error.kind, kind, line);
    assert.ok(error.fix, line);
    assert.match(error.message, /^Cannot start machine m-1: /);
    assert.deepEqual(error.tail.map(String), ['something before', line]);
  }
});

test('startFailure() gives the last line of an unknown message, and of an empty log the cause', () => {
  const cause = new Error('the reason');
  const error = startFailure('m-1', ['one', 'two'].map(guestText), cause);
  assert.deepEqual([error.kind, error.message, error.cause], ['internal', 'Cannot start machine m-1: two', cause]);
  assert.equal(startFailure('m-1', [], cause).message, 'Cannot start machine m-1: the reason');
  const exit = { outweighsLog: false, reason: 'QEMU ended with code 3' };
  assert.match(startFailure('m-1', [], cause, exit).message, /: QEMU ended with code 3$/);
  assert.match(startFailure('m-1', [guestText('two')], cause, exit).message, /: two$/);
  const bus = { outweighsLog: true, reason: 'QEMU was killed by SIGBUS' };
  assert.match(startFailure('m-1', [guestText('two')], cause, bus).message, /: QEMU was killed by SIGBUS$/);
});
