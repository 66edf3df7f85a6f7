import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerOf, answers } from '#host/testing/seccomp-examples.ts';
import { readerCalls, skopeoCalls } from './jail-calls.ts';

const { allow, noSuchCall } = answers;
const notPermitted = 0x0005_0001;
const [socket, socketpair, clone] = [41, 53, 56];

const lists = { readerCalls: readerCalls(), skopeoCalls: skopeoCalls() };

for (const [name, list] of Object.entries(lists)) {
  test(`${name}() allows the calls that every program needs, and none that leads out of a jail`, () => {
    for (const number of [0, 1, 9, 16, 59, 61, 202, 257, 262]) assert.equal(answerOf(list, number), allow);
    const refused = {
      ...{ fork: 57, ptrace: 101, setuid: 105, pivot_root: 155, chroot: 161, mount: 165, umount: 166, reboot: 169 },
      ...{ init_module: 175, io_setup: 206, kexec_load: 246, add_key: 248, keyctl: 250, unshare: 272, vmsplice: 278 },
      ...{ perf_event_open: 298, open_by_handle_at: 304, setns: 308, process_vm_readv: 310, finit_module: 313 },
      ...{ seccomp: 317, memfd_create: 319, kexec_file_load: 320, bpf: 321, userfaultfd: 323, io_uring_setup: 425 },
      ...{ open_tree: 428, move_mount: 429, fsopen: 430, clone3: 435, pidfd_getfd: 438, mount_setattr: 442 },
    };
    for (const [call, number] of Object.entries(refused)) assert.equal(answerOf(list, number), noSuchCall, call);
    const thread = 0x003d_0f00;
    for (const flags of [thread, 0x0120_0011]) assert.equal(answerOf(list, clone, [flags]), allow);
    for (const bit of [17, 25, 26, 27, 28, 29, 30])
      assert.equal(answerOf(list, clone, [thread | (1 << bit)]), notPermitted, String(bit));
    assert.equal(answerOf(list, socketpair, [1]), allow);
  });
}

test('readerCalls() allows no sockets, skopeoCalls() those of the internet and unix families', () => {
  for (let family = 0; family < 50; family += 1) {
    assert.equal(answerOf(lists.readerCalls, socket, [family]), noSuchCall, String(family));
    const expected = [1, 2, 10].includes(family) ? allow : noSuchCall;
    assert.equal(answerOf(lists.skopeoCalls, socket, [family]), expected, String(family));
  }
});
