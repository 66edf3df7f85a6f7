import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readdir, readFile, readlink, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { type RequestKind, requestKinds, requestPage } from '#base/file-requests.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import {
  errno,
  type Guest,
  message,
  op,
  openServerBench,
  rootNode as root,
  type ServerBench,
  text,
  u32,
  u64,
  whyNoServer,
} from '../../test/fuzz/scripted-guest.ts';

/**
 * Tests of the real program, compiled with address and undefined-behaviour checks, with requests that no kernel would
 * make. Requests of kernels are tested in real machines (`test/vm/share.test.ts`, `npm run posix`).
 */
async function canUnmount(path: string, forMs = 20_000): Promise<boolean> {
  const signal = AbortSignal.timeout(forMs);
  const unmounted = () =>
    run('umount', [path]).then(
      () => true,
      () => undefined,
    );
  return (await poll(unmounted, { everyMs: 50, signal })) ?? false;
}

const mayNotSkip = process.env['PODVM_REQUIRE_VM'] === '1';

describe(
  'the file server, asked by a guest that is no kernel',
  { skip: mayNotSkip ? false : (whyNoServer ?? false) },
  () => {
    let bench: ServerBench;
    let [directory, served] = ['', ''];
    const start = (...words: string[]) => bench.start(...words);
    const closesAll = async (guest: Guest) => {
      const isClosed = async () => ((await guest.openBelow(served)).length === 0 ? true : undefined);
      assert.ok(await poll(isClosed, { everyMs: 50, signal: AbortSignal.timeout(60_000) }), 'it closes all');
    };

    before(async () => {
      bench = await openServerBench();
      ({ directory, served } = bench);
    });
    after(() => bench[Symbol.asyncDispose]());

    const asking =
      (ask: (guest: Guest) => Promise<void>, ...words: string[]) =>
      async () => {
        const guest = await start(...words);
        try {
          await ask(guest);
        } finally {
          await guest.leave();
        }
      };

    test(
      'takes a name for one component and for nothing else',
      asking(async (guest) => {
        await writeFile(join(directory, 'outside'), 'secret');
        await mkdir(join(served, 'inside'));
        await writeFile(join(served, 'inside/file'), 'x');
        for (const name of ['..', '.', '', '../outside', '/etc', 'inside/file', 'inside/../../outside']) {
          assert.equal(await guest.errorOf(op.lookUp, root, text(name)), errno.invalid, JSON.stringify(name));
          const rename = Buffer.concat([u64(root), u32(0, 0), text('inside'), text(name)]);
          assert.equal(await guest.errorOf(op.rename2, root, rename), errno.invalid, JSON.stringify(name));
          const create = Buffer.concat([u32(1, 0o644, 0, 0), text(name)]);
          assert.equal(await guest.errorOf(op.create, root, create), errno.invalid, JSON.stringify(name));
          assert.equal(await guest.errorOf(op.removeFile, root, text(name)), errno.invalid, JSON.stringify(name));
          assert.equal(await guest.errorOf(op.symlink, root, Buffer.concat([text(name), text('x')])), errno.invalid);
        }
        assert.equal(await guest.errorOf(op.lookUp, root, text('x'.repeat(256))), errno.nameTooLong);
        assert.equal(await guest.errorOf(op.lookUp, root, Buffer.from('unended')), errno.invalid);
        assert.equal(await guest.errorOf(op.lookUp, root), errno.invalid);
        assert.deepEqual((await readdir(served)).sort(), ['inside']);
        assert.equal(await readFile(join(directory, 'outside'), 'utf8'), 'secret');
      }),
    );

    test(
      'opens neither what a link leads to nor what is no file',
      asking(async (guest) => {
        await symlink('../outside', join(served, 'link'));
        await run('mkfifo', [join(served, 'fifo')]);
        for (const name of ['link', 'fifo']) {
          const node = await guest.nodeOf(name);
          assert.equal(await guest.errorOf(op.open, node, u32(2, 0)), errno.access, name);
          assert.equal(await guest.errorOf(op.openDirectory, node, u32(0, 0)), errno.access, name);
          const create = Buffer.concat([u32(2, 0o644, 0, 0), text(name)]);
          assert.equal(await guest.errorOf(op.create, root, create), errno.access, name);
        }
      }),
    );

    test(
      'knows no number that it has not given out',
      asking(async (guest) => {
        for (const number of [0, 4711, 2 ** 32 + 1, 2 ** 53 - 1]) {
          assert.equal(await guest.errorOf(op.getAttributes, number, Buffer.alloc(16)), errno.stale);
          assert.equal(
            await guest.errorOf(op.read, root, Buffer.concat([u64(number), Buffer.alloc(32)])),
            errno.badHandle,
          );
          assert.equal(await guest.errorOf(op.link, root, Buffer.concat([u64(number), text('linked')])), errno.stale);
        }
        assert.equal(await guest.errorOf(99, root), errno.noSuchCall);
      }),
    );

    test(
      'keeps a file that is open, whatever the guest says that it has forgotten',
      asking(async (guest) => {
        await writeFile(join(served, 'open'), 'still here');
        const node = await guest.nodeOf('open');
        const handle = await guest.open(node, 0);
        guest.send(message(op.forget, 0, node, u64(2 ** 40), 0));
        guest.send(message(op.forget, 0, root, u64(2 ** 40), 0));
        const read = await guest.ask(op.read, node, Buffer.concat([u64(handle), u64(0), u32(100, 0, 0, 0, 0, 0)]));
        assert.equal(read.body.toString(), 'still here');
        assert.equal((await guest.ask(op.getAttributes, root, Buffer.alloc(16))).error, 0);
        assert.equal(await guest.errorOf(op.release, node, Buffer.concat([u64(handle), Buffer.alloc(16)])), 0);
        assert.equal(await guest.errorOf(op.getAttributes, node, Buffer.alloc(16)), errno.stale);
      }),
    );

    test(
      'answers the close of a file together with the request that came with it, and alone when none did',
      asking(async (guest) => {
        const writes = async () =>
          Number(/^syscw: (\d+)$/m.exec(await readFile(`/proc/${guest.serverPid}/io`, 'latin1'))?.[1]);
        await writeFile(join(served, 'closed'), 'x');
        const node = await guest.nodeOf('closed');
        const close = async () => {
          const handle = await guest.open(node, 0);
          return { opcode: op.release, node, body: Buffer.concat([u64(handle), Buffer.alloc(16)]) };
        };
        const lookUp = { opcode: op.lookUp, node: root, body: text('absent') };
        const together = [await close(), await close(), lookUp];
        const before = await writes();
        const replies = await Promise.all(guest.askTogether(together));
        assert.deepEqual(
          replies.map(({ error }) => error),
          [0, 0, errno.noEntry],
        );
        assert.equal((await writes()) - before, 1);
        const alone = await close();
        assert.equal(await guest.errorOf(alone.opcode, alone.node, alone.body), 0);
        // More closes than answers are held, and a long answer behind one.
        const many = await Promise.all(Array.from({ length: 200 }, close));
        for (const { error } of await Promise.all(guest.askTogether(many))) assert.equal(error, 0);
        await writeFile(join(served, 'long'), 'y'.repeat(100_000));
        const long = await guest.nodeOf('long');
        const handle = await guest.open(long, 0);
        const read = {
          opcode: op.read,
          node: long,
          body: Buffer.concat([u64(handle), u64(0), u32(131_072, 0, 0, 0, 0, 0)]),
        };
        const [closed, content] = await Promise.all(guest.askTogether([await close(), read]));
        assert.deepEqual([closed?.error, content?.body.toString()], [0, 'y'.repeat(100_000)]);
      }),
    );

    test(
      'makes files as the user who asks, who may be of the directory’s group, as the guest’s kernel alone knows',
      asking(async (guest) => {
        await mkdir(join(served, 'group'));
        await chown(join(served, 'group'), 0, 4321);
        await chmod(join(served, 'group'), 0o770);
        const create = Buffer.concat([u32(2, 0o4640, 0, 0), text('theirs')]);
        assert.equal((await guest.ask(op.create, await guest.nodeOf('group'), create, 1234)).error, 0);
        const { uid, gid, mode } = await stat(join(served, 'group/theirs'));
        assert.deepEqual([uid, gid, mode & 0o7777], [1234, 1234, 0o4640]);
      }),
    );

    test(
      'does for a user who is not root nothing that this user may not, whatever its kernel has allowed',
      asking(async (guest) => {
        await chmod(served, 0o755);
        const create = Buffer.concat([u32(2, 0o644, 0, 0), text('new')]);
        assert.equal((await guest.ask(op.create, root, create, 1234)).error, errno.access);
        await writeFile(join(served, 'secret'), 'secret', { mode: 0o600 });
        const node = await guest.nodeOf('secret');
        const attributes = (valid: number, mode: number, user: number) =>
          Buffer.concat([u32(valid, 0), Buffer.alloc(60), u32(mode, 0, user, user, 0)]);
        for (const flags of [0, 1, 2, 0o40]) {
          assert.equal((await guest.ask(op.open, node, u32(flags, 0), 1234)).error, errno.access, String(flags));
        }
        assert.equal(
          (await guest.ask(op.setAttributes, node, attributes(1, 0o4777, 0), 1234)).error,
          errno.notPermitted,
        );
        assert.equal((await guest.ask(op.setAttributes, node, attributes(2, 0, 1234), 1234)).error, errno.notPermitted);
        assert.equal((await guest.ask(op.removeFile, root, text('secret'), 1234)).error, errno.access);
        assert.equal((await guest.ask(op.link, root, Buffer.concat([u64(node), text('mine')]), 1234)).error > 0, true);
        assert.equal((await guest.ask(op.open, node, u32(2, 0))).error, 0); // root's may
        const { uid, mode } = await stat(join(served, 'secret'));
        assert.deepEqual([uid, mode & 0o7777], [0, 0o600]);
        await chmod(served, 0o1777);
      }),
    );

    test(
      'opens a program that may be run and not read, to be run',
      asking(async (guest) => {
        await writeFile(join(served, 'program'), '#!', { mode: 0o711 });
        const node = await guest.nodeOf('program');
        assert.equal((await guest.ask(op.open, node, u32(0, 0), 1234)).error, errno.access);
        assert.equal((await guest.ask(op.open, node, u32(0o40, 0), 1234)).error, 0);
        assert.equal((await guest.ask(op.open, node, u32(0o42, 0), 1234)).error, errno.access);
      }),
    );

    test(
      'serves nothing of a kernel’s file system, wherever and whenever it is mounted, and what is data beside it',
      asking(async (guest) => {
        const kinds = ['proc', 'sysfs', 'devpts', 'mqueue', 'data'];
        const points = kinds.map((kind) => join(served, kind));
        for (const [at, kind] of kinds.entries()) {
          await mkdir(points[at] ?? '');
          await run('mount', ['-t', kind === 'data' ? 'tmpfs' : kind, 'podvm-test', points[at] ?? '']);
        }
        await writeFile(join(served, 'switch'), '');
        await run('mount', ['--bind', '/proc/sys/kernel/core_pattern', join(served, 'switch')]);
        try {
          for (const kind of ['proc', 'sysfs', 'devpts', 'mqueue', 'switch']) {
            assert.equal(await guest.errorOf(op.lookUp, root, text(kind)), errno.access, kind);
          }
          const below = await guest.nodeOf('data');
          assert.equal(
            (await guest.ask(op.create, below, Buffer.concat([u32(1, 0o644, 0, 0), text('file')]))).error,
            0,
          );
        } finally {
          for (const point of [join(served, 'switch'), ...points]) await run('umount', ['--lazy', point]); // the server has a node of one
        }
      }),
    );

    test(
      'keeps no mount of the host that propagates in use, and finds what a guest still knows where it was last seen',
      asking(async (guest) => {
        const mounted = join(served, 'mounted');
        await mkdir(mounted);
        await run('mount', ['-t', 'tmpfs', 'podvm-test', mounted]);
        try {
          await mkdir(join(mounted, 'closed/deep'), { recursive: true, mode: 0o700 });
          await writeFile(join(mounted, 'closed/deep/file'), 'content');
          const top = await guest.nodeOf('mounted');
          const closed = await guest.nodeOf('closed', top);
          const deep = await guest.nodeOf('deep', closed);
          const file = await guest.nodeOf('file', deep);
          const handle = await guest.open(file, 0);
          assert.equal(await canUnmount(mounted, 1000), false, 'a file is open');
          assert.equal(await guest.errorOf(op.release, file, Buffer.concat([u64(handle), Buffer.alloc(16)])), 0);
          assert.equal(await canUnmount(mounted), true, 'nothing is open');

          await run('mount', ['-t', 'tmpfs', 'podvm-test', mounted]);
          assert.equal(
            await guest.errorOf(op.getAttributes, file, Buffer.alloc(16)),
            errno.stale,
            'another file system',
          );
          assert.equal((await guest.ask(op.getAttributes, root, Buffer.alloc(16))).error, 0);
        } finally {
          await run('umount', ['--lazy', mounted]).catch(() => undefined);
        }
      }, 'propagated'),
    );

    test(
      'finds a file that it has closed under the name that a guest gave it, for any user, and no other that took its name',
      asking(async (guest) => {
        await mkdir(join(served, 'first/private'), { recursive: true });
        await chmod(join(served, 'first'), 0o700);
        await writeFile(join(served, 'first/private/file'), 'content', { mode: 0o666 });
        const first = await guest.nodeOf('first');
        const inner = await guest.nodeOf('private', first);
        const file = await guest.nodeOf('file', inner);
        await closesAll(guest);
        assert.equal((await guest.ask(op.getAttributes, file, Buffer.alloc(16), 1234)).error, 0);
        const rename = Buffer.concat([u64(root), u32(0, 0), text('first'), text('second')]);
        assert.equal(await guest.errorOf(op.rename2, root, rename), 0);
        const exchange = Buffer.concat([u64(root), u32(2, 0), text('private'), text('aside')]);
        await mkdir(join(served, 'aside'));
        const other = await guest.nodeOf('aside');
        assert.equal(await guest.errorOf(op.rename2, first, exchange), 0);
        await closesAll(guest);
        for (const node of [first, inner, file, other]) {
          assert.equal(await guest.errorOf(op.getAttributes, node, Buffer.alloc(16)), 0);
        }
        await closesAll(guest);
        await run('mv', [join(served, 'aside/file'), join(served, 'aside/elsewhere')]);
        await writeFile(join(served, 'aside/file'), 'another');
        assert.equal(await guest.errorOf(op.getAttributes, file, Buffer.alloc(16)), errno.stale);
        assert.notEqual(await guest.nodeOf('file', inner), file);
        assert.equal(await guest.nodeOf('elsewhere', inner), file);
        assert.equal(await guest.errorOf(op.getAttributes, file, Buffer.alloc(16)), 0);
      }, 'propagated'),
    );

    test('refuses a named device whose file system has the type of a tmpfs', async () => {
      const [major, minor] = (await run('stat', ['-c', '%Hd %Ld', served])).stdout.trim().split(' ');
      await mkdir(join(served, 'other'));
      await run('mount', ['-t', 'tmpfs', 'podvm-test', join(served, 'other')]);
      try {
        const other = (await run('stat', ['-c', '%Hd:%Ld', join(served, 'other')])).stdout.trim();
        const guest = await start(`refuse=${other}`);
        assert.equal(await guest.errorOf(op.lookUp, root, text('other')), errno.access);
        await guest.leave();
        await assert.rejects(start(`refuse=${major}:${minor}`));
      } finally {
        await run('umount', [join(served, 'other')]);
      }
    });

    test(
      'changes nothing of a share that is read-only',
      asking(async (guest) => {
        await writeFile(join(served, 'kept'), 'kept');
        const node = await guest.nodeOf('kept');
        const handle = await guest.open(node, 0);
        for (const flags of [1, 2, 0o1000]) {
          assert.equal(await guest.errorOf(op.open, node, u32(flags, 0)), errno.readOnly, String(flags));
        }
        for (const opcode of [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51]) {
          const body = Buffer.concat([u64(handle), Buffer.alloc(64), text('kept')]);
          assert.equal(await guest.errorOf(opcode, node, body), errno.readOnly, String(opcode));
        }
        const read = await guest.ask(op.read, node, Buffer.concat([u64(handle), u64(0), u32(100, 0, 0, 0, 0, 0)]));
        assert.equal(read.body.toString(), 'kept');
      }, 'readonly'),
    );

    test(
      'acts as root, not as an earlier requester, if a request does not name its user',
      asking(async (guest) => {
        const create = (name: string) => Buffer.concat([u32(1, 0o644, 0, 0), text(name)]);
        assert.equal((await guest.ask(op.create, root, create('said'), 1234)).error, 0);
        assert.equal((await guest.ask(op.create, root, create('unsaid'), 0xffff_ffff)).error, 0);
        const owners = await Promise.all(['said', 'unsaid'].map(async (name) => (await stat(join(served, name))).uid));
        assert.deepEqual(owners, [1234, 0]);
      }),
    );

    test(
      'answers who waits for a lock that its holder never gives back when it is interrupted, or its file closed',
      asking(async (guest) => {
        await writeFile(join(served, 'locked'), '');
        const node = await guest.nodeOf('locked');
        const [first, second] = [await guest.open(node, 2), await guest.open(node, 2)];
        const lock = (handle: number, owner: number) =>
          Buffer.concat([u64(handle), u64(owner), u64(0), u64(10), u32(1, 0, 0, 0)]);
        assert.equal(await guest.errorOf(op.setLockWaiting, node, lock(first, 1)), 0);
        const waits = guest.ask(op.setLockWaiting, node, lock(second, 2));
        assert.equal(await guest.errorOf(op.release, node, Buffer.concat([u64(second), Buffer.alloc(16)])), 0);
        assert.equal((await waits).error, errno.badHandle);
      }),
    );

    test(
      'locks nothing of the host where locks are the own of the guest',
      asking(async (guest) => {
        const path = join(served, 'lock-of-the-host');
        await writeFile(path, '');
        const node = await guest.nodeOf('lock-of-the-host');
        const handle = await guest.open(node, 0);
        for (const [flags, type] of [
          [1, 1], // flock
          [1, 0],
          [0, 0], // a range
        ] as const) {
          const lock = Buffer.concat([u64(handle), u64(1), u64(0), u64(10), u32(type, 0, flags, 0)]);
          for (const call of [op.setLock, op.setLockWaiting, op.getLock])
            assert.equal(await guest.errorOf(call, node, lock), errno.noSuchCall);
          await run('flock', ['--nonblock', '--exclusive', path, 'true']);
        }
      }, 'ownlocks'),
    );

    test('ends at a message that is too short or too long to be one', async () => {
      for (const length of [0, 39, 2 ** 20]) {
        const guest = await start();
        guest.send(Buffer.concat([u32(length), Buffer.alloc(60)]));
        await guest.ended;
        assert.match(guest.said, /a request of \d+ bytes/);
      }
    });

    test(
      'counts its requests by kind for the host, in memory that only it can write',
      asking(async (guest) => {
        await writeFile(join(served, 'counted'), 'text');
        const handle = await guest.open(await guest.nodeOf('counted'), 2); // two that look
        const write = Buffer.concat([u64(handle), u64(0), u32(3, 0), u64(0), u32(0, 0), Buffer.from('abc')]);
        assert.equal(await guest.errorOf(op.write, root, write), 0);
        const read = Buffer.concat([u64(handle), u64(0), u32(4, 0), u64(0), u32(0, 0)]);
        assert.equal((await guest.ask(op.read, root, read)).body.toString(), 'abct');
        for (let times = 0; times < 3; times += 1)
          assert.equal(await guest.errorOf(op.fsync, root, Buffer.concat([u64(handle), u32(0, 0)])), 0);
        assert.equal(await guest.errorOf(op.removeFile, root, text('counted')), 0);

        const path = `/proc/${guest.serverPid}/fd/${requestPage.fd}`;
        assert.equal(await readlink(path), `/memfd:${requestPage.name} (deleted)`);
        const page = await readFile(path);
        const countsOf = (kind: RequestKind) => {
          const start = requestPage.kindsAt + requestKinds.indexOf(kind) * requestPage.wordsOfKind;
          const words = Array.from({ length: 8 }, (_, at) => Number(page.readBigUInt64LE(8 * (start + at))));
          return { count: words.slice(0, 7).reduce((sum, each) => sum + each), ns: words[7] ?? 0 };
        };
        const counts = Object.fromEntries(requestKinds.map((kind) => [kind, countsOf(kind).count]));
        assert.deepEqual(counts, { look: 2, read: 1, write: 1, change: 1, flush: 3, other: 1 }); // `init`
        for (const kind of requestKinds) assert.ok(countsOf(kind).ns > 0 && countsOf(kind).ns < 60e9, kind);
        assert.equal(page.readBigUInt64LE(0), 0n, 'nothing is under way');
        await assert.rejects(writeFile(path, 'x', { flag: 'r+' }), /EPERM/);
        await assert.rejects(truncate(path, 8192), /EPERM/);
      }),
    );

    test(
      'lives on after 2000 messages of any content',
      asking(async (guest) => {
        for (const name of ['a', 'b']) await writeFile(join(served, name), name);
        for (const flags of [0, 1, 2, 0o2001]) await guest.open(await guest.nodeOf('a'), flags);
        const word = fc.oneof(
          fc.nat(8),
          fc.constantFrom(0x7fff_ffff, 0xffff_ffff, 0x8000_0000, 0o644, 0o40755),
          fc.nat(),
        );
        const body = fc.tuple(
          fc.array(word, { maxLength: 12 }),
          fc.constantFrom('', 'a\0', 'b\0a\0', 'c\0d\0', '..\0', 'a'),
        );
        const any = fc.record({ opcode: fc.integer({ min: 1, max: 52 }), node: fc.nat(4), body });
        await fc.assert(
          fc.asyncProperty(any, async ({ opcode, node, body: [words, tail] }) => {
            guest.send(message(opcode, 2 ** 40, node, Buffer.concat([u32(...words), Buffer.from(tail)]), 0));
            assert.equal((await guest.ask(op.getAttributes, root, Buffer.alloc(16))).error, 0);
          }),
          { numRuns: 2000 },
        );
        assert.equal(await readFile(join(directory, 'outside'), 'utf8'), 'secret');
        assert.deepEqual((await readdir(directory)).filter((name) => !name.startsWith('socket')).sort(), [
          'files',
          'outside',
          'served',
        ]);
      }),
    );
  },
);
