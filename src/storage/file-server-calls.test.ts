import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerOf, answers } from '#host/testing/seccomp-examples.ts';
import { fileServerCalls } from './file-server-calls.ts';

const { allow, noSuchCall } = answers;
const readOnlyFileSystem = 0x0005_001e;
const [fcntl, flock, openat] = [72, 73, 257];

test('fileServerCalls() allows the calls that serve files, and no others', () => {
  const program = fileServerCalls({ changes: true, locks: true });
  for (const number of [0, 1, 17, 18, 74, openat, 262, 316, 326]) assert.equal(answerOf(program, number), allow);
  const refused = {
    ...{ ioctl: 16, socket: 41, connect: 42, socketpair: 53, fork: 57, execve: 59, kill: 62, ptrace: 101, setuid: 105 },
    ...{ pivot_root: 155, chroot: 161, mount: 165, umount: 166, init_module: 175, keyctl: 250, unshare: 272 },
    ...{ perf_event_open: 298, prlimit: 302, open_by_handle_at: 304, setns: 308, process_vm_readv: 310, seccomp: 317 },
    ...{ memfd_create: 319, bpf: 321, execveat: 322, userfaultfd: 323, pidfd_open: 434, clone3: 435, io_uring: 425 },
    ...{ openat2: 437, open_tree: 428, move_mount: 429, fsopen: 430, mount_setattr: 442 },
  };
  for (const [name, number] of Object.entries(refused)) assert.equal(answerOf(program, number), noSuchCall, name);
  assert.equal(answerOf(program, 56, [0x003d_0f00]), allow); // a thread
  assert.equal(answerOf(program, 56, [0x0120_0011]), noSuchCall);
});

test('fileServerCalls() of a read-only share allows no call that changes files', () => {
  const program = fileServerCalls({ changes: false, locks: false });
  const changing = [18, 76, 77, 90, 188, 197, 258, 259, 260, 263, 264, 265, 266, 280, 285, 316, 326];
  for (const number of changing) assert.equal(answerOf(program, number), noSuchCall, String(number));
  for (const flags of [0, 0o2000000, 0o10000000, 0o200000]) {
    assert.equal(answerOf(program, openat, [0, 0, flags]), allow, flags.toString(8));
  }
  for (const flags of [1, 2, 0o100, 0o1000, 0o20200002, 0o20000000]) {
    assert.equal(answerOf(program, openat, [0, 0, flags]), readOnlyFileSystem, flags.toString(8));
  }
});

test('fileServerCalls() of a share that is mounted read-only allows no lock, writable mounts below it or not', () => {
  for (const changes of [true, false]) {
    const program = fileServerCalls({ changes, locks: false });
    assert.equal(answerOf(program, flock), noSuchCall);
    for (const command of [0, 3, 4, 1030]) assert.equal(answerOf(program, fcntl, [0, command]), allow, String(command));
    // Locks, leases and signals.
    for (const command of [5, 6, 7, 8, 36, 37, 38, 1024, 1026])
      assert.equal(answerOf(program, fcntl, [0, command]), noSuchCall, String(command));
  }
  const locks = fileServerCalls({ changes: true, locks: true });
  assert.equal(answerOf(locks, fcntl, [0, 37]), allow);
  assert.equal(answerOf(locks, flock), allow);
});
