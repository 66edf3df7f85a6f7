import assert from 'node:assert/strict';
import { test } from 'node:test';
import { numberOf } from '#host/jail/syscall-numbers.ts';
import { answerOf, answers } from '#host/testing/seccomp-examples.ts';
import { dnsCalls } from './dns-calls.ts';

const { allow, noSuchCall } = answers;
const notPermitted = 0x0005_0001;

test('dnsCalls() allows what a name server does, and nothing that leads out of a jail or changes a file', () => {
  const list = dnsCalls();
  for (const call of ['read', 'recvmsg', 'sendto', 'execve', 'openat', 'accept'])
    assert.equal(answerOf(list, numberOf(call)), allow, call);
  const refused = [
    'ptrace',
    'mount',
    'unshare',
    'setns',
    'bpf',
    'keyctl',
    'io_uring_setup',
    'clone3',
    'setuid',
    'chroot',
  ];
  const changing = ['rename', 'unlink', 'chmod', 'fchown', 'mkdirat', 'symlinkat', 'truncate', 'memfd_create', 'mknod'];
  for (const call of [...refused, ...changing]) assert.equal(answerOf(list, numberOf(call)), noSuchCall, call);
  const socket = numberOf('socket');
  for (let family = 0; family < 50; family += 1)
    assert.equal(answerOf(list, socket, [family]), [2, 10, 16].includes(family) ? allow : noSuchCall, String(family));
  const clone = numberOf('clone');
  assert.equal(answerOf(list, clone, [0x0120_0011]), allow);
  assert.equal(answerOf(list, clone, [0x1000_0000]), notPermitted, 'CLONE_NEWUSER');
});
