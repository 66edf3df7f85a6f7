import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { answerOf as answerOfProgram, answers } from '#host/testing/seccomp-examples.ts';
import { seccompFilter } from './seccomp-filter.ts';

const { allow, noSuchCall, killed } = answers;
const call = { read: 0, socket: 41, clone: 56, fork: 57, execve: 59, ptrace: 101, mount: 165, unshare: 272 } as const;

const answerOf = (number: number, firstArgument = 0, architecture?: number) =>
  answerOfProgram(seccompFilter(), number, [firstArgument], architecture);

test('seccompFilter() allows what QEMU calls, and answers ENOSYS to calls that only an attacker needs', () => {
  for (const number of [call.read, call.execve, 16, 202, 271]) assert.equal(answerOf(number), allow, String(number));
  const refused = {
    ...{ fork: call.fork, vfork: 58, kill: 62, ptrace: call.ptrace, setuid: 105, chroot: 161, mount: call.mount },
    ...{ init_module: 175, add_key: 248, unshare: call.unshare, perf_event_open: 298, open_by_handle_at: 304 },
    ...{ setns: 308, process_vm_readv: 310, bpf: 321, userfaultfd: 323, io_uring_setup: 425, clone3: 435 },
  };
  for (const [name, number] of Object.entries(refused)) assert.equal(answerOf(number), noSuchCall, name);
});

test('seccompFilter() allows what QEMU calls when it runs KVM, which emulation may not need', () => {
  const ofKvm = {
    ...{ ioctl: 16, mmap: 9, madvise: 28, eventfd2: 290, ppoll: 271, tgkill: 234, prctl: 157, arch_prctl: 158 },
    ...{ rt_sigpending: 127, rt_sigtimedwait: 128, sigaltstack: 131, membarrier: 324 },
  };
  for (const [name, number] of Object.entries(ofKvm)) assert.equal(answerOf(number), allow, name);
});

test('seccompFilter() allows threads and unix sockets, and neither processes nor other families', () => {
  const thread = 0x003d_0f00; // flags of glibc's pthread_create
  assert.equal(answerOf(call.clone, thread), allow);
  assert.equal(answerOf(call.clone, 0x0120_0011), noSuchCall); // fork()
  for (let bit = 25; bit <= 30; bit += 1) assert.equal(answerOf(call.clone, thread | (1 << bit)), noSuchCall);
  assert.equal(answerOf(call.clone, thread | 0x0002_0000), noSuchCall); // CLONE_NEWNS
  assert.equal(answerOf(call.socket, 1), allow);
  for (const family of [0, 2, 10, 16, 17, 38, 40]) assert.equal(answerOf(call.socket, family), noSuchCall);
});

test('seccompFilter() refuses huge pages only for a mapping that is as large as one', () => {
  const [madvise, huge, mebibyte] = [28, 14, 1024 * 1024]; // MADV_HUGEPAGE
  const advised = (bytes: number, advice: number) => answerOfProgram(seccompFilter(), madvise, [0, bytes, advice]);
  assert.equal(advised(2 * mebibyte, huge), noSuchCall);
  for (const bytes of [mebibyte, 2 * mebibyte - 1, 2 * mebibyte + 1, 96 * mebibyte, 512 * mebibyte])
    assert.equal(advised(bytes, huge), allow, String(bytes));
  for (const advice of [4, 13, 15]) assert.equal(advised(2 * mebibyte, advice), allow, String(advice));
});

test('seccompFilter() answers every call, and allows no call of another ABI', () => {
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), fc.nat(0xffff_ffff), (number, argument) => {
      const answered = answerOf(number, argument);
      assert.ok(answered === allow || answered === noSuchCall);
    }),
  );
  for (let number = 0; number < 600; number += 1) {
    assert.equal(answerOf(0x4000_0000 | number), noSuchCall); // x32
    assert.equal(answerOf(number, 0, 0x4000_0003), killed); // 32 bits
  }
});
