import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { run } from '#host/run.ts';

/**
 * The program as it is, compiled with address and undefined-behaviour checks, and a guest that asks what no kernel would.
 * What kernels ask is asked in real machines (`test/vm/share.test.ts`, `npm run posix`).
 */
const buildRoot = globSync('/var/lib/podvm/{build-root,parts/build-root-*/root}')[0] ?? '';
const mayNotSkip = process.env['PODVM_REQUIRE_VM'] === '1';
const reason = !existsSync(join(buildRoot, 'usr/bin/gcc'))
  ? 'no compiler: run `podvm setup`'
  : process.getuid?.() === 0
    ? undefined
    : 'needs root';

const code = { lookUp: 1, forget: 2, getAttributes: 3, setAttributes: 4, symlink: 6, link: 13, open: 14, read: 15 };
const more = { write: 16, init: 26, openDirectory: 27, readDirectory: 28, create: 35, setLockWaiting: 33, rename2: 45 };
const op = { ...code, ...more, makeDirectory: 9, removeFile: 10, makeNode: 8, flush: 25, release: 18 };
const errno = {
  noEntry: 2,
  badHandle: 9,
  access: 13,
  exists: 17,
  invalid: 22,
  nameTooLong: 36,
  noSuchCall: 38,
  stale: 116,
};
const root = 1;

const u32 = (...values: number[]) => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, 4 * at);
  return bytes;
};
const u64 = (value: number) => u32(value % 2 ** 32, Math.floor(value / 2 ** 32));
const text = (value: string) => Buffer.from(`${value}\0`);

/** One request, as a kernel lays it out. */
function message(opcode: number, unique: number, node: number, body: Buffer, user: number): Buffer {
  const header = [u32(40 + body.length, opcode), u64(unique), u64(node), u32(user, user, 1, 0)];
  return Buffer.concat([...header, body]);
}

interface Reply {
  /** Positive errno, or 0. */
  readonly error: number;
  readonly body: Buffer;
}

/** The other end of the program's connection. */
class Guest {
  readonly #process: ChildProcess;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  readonly ended: Promise<unknown>;
  said = '';
  #received = Buffer.alloc(0);
  #unique = 0;

  constructor(process: ChildProcess, socket: Socket) {
    this.#process = process;
    this.#socket = socket;
    this.ended = once(process, 'exit');
    process.stderr?.on('data', (bytes: Buffer) => (this.said += bytes.toString()));
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', () => undefined);
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  ask(opcode: number, node: number, body = Buffer.alloc(0), user = 0): Promise<Reply> {
    const unique = (this.#unique += 1);
    const reply = new Promise<Reply>((resolve) => this.#waiting.set(unique, resolve));
    this.send(message(opcode, unique, node, body, user));
    return reply;
  }

  async errorOf(opcode: number, node: number, body = Buffer.alloc(0)): Promise<number> {
    return (await this.ask(opcode, node, body)).error;
  }

  /** Node of a name. */
  async nodeOf(name: string, directory = root): Promise<number> {
    const { error, body } = await this.ask(op.lookUp, directory, text(name));
    assert.equal(error, 0, `${name} is there`);
    return Number(body.readBigUInt64LE(0));
  }

  async open(node: number, flags: number): Promise<number> {
    const { error, body } = await this.ask(op.open, node, u32(flags, 0));
    assert.equal(error, 0);
    return Number(body.readBigUInt64LE(0));
  }

  /** Leaves, whereupon the program ends, with nothing to complain of. */
  async leave(): Promise<void> {
    this.#socket.destroy();
    await this.ended;
    assert.equal(this.said, '');
    assert.equal(this.#process.exitCode, 0);
  }

  #take(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    while (this.#received.length >= 16 && this.#received.length >= this.#received.readUInt32LE(0)) {
      const length = this.#received.readUInt32LE(0);
      const unique = Number(this.#received.readBigUInt64LE(8));
      const reply = { error: Math.abs(this.#received.readInt32LE(4)), body: this.#received.subarray(16, length) };
      this.#received = this.#received.subarray(length);
      this.#waiting.get(unique)?.(reply);
      this.#waiting.delete(unique);
    }
  }
}

describe(
  'the file server, asked by a guest that is no kernel',
  { skip: mayNotSkip ? false : (reason ?? false) },
  () => {
    let directory = '';
    /** What is served, a small file system of its own: `allocate` may ask for anything. */
    let served = '';

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
      served = join(directory, 'served');
      await mkdir(served);
      await run('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', served]);
      const { buildProgram } = await import('#setup/build-program.ts'); // the bundler is no business of a machine that skips
      await buildProgram({
        repo: join(import.meta.dirname, '../..'),
        buildRoot,
        outFile: join(directory, 'files'),
        entry: 'src/file-server/main.ts',
        calls: 'fileServer',
        sanitize: true,
        signal: AbortSignal.timeout(120_000),
      });
    });
    after(async () => {
      await run('umount', [served]);
      await rm(directory, { recursive: true });
    });

    let guests = 0;
    async function start(): Promise<Guest> {
      const path = join(directory, `socket-${(guests += 1)}`);
      const listener = createServer().listen(path);
      await once(listener, 'listening');
      const accepted = once(listener, 'connection') as Promise<[Socket]>; // SAFE: net.Server's event
      const theirs = connect(path);
      const [[socket]] = await Promise.all([accepted, once(theirs, 'connect')]);
      listener.close();
      theirs.pause();
      const program = spawn(join(directory, 'files'), [served], { stdio: [theirs, 'ignore', 'pipe'] });
      await once(program, 'spawn');
      theirs.destroy();
      const guest = new Guest(program, socket);
      assert.equal(await guest.errorOf(op.init, 0, u32(7, 41, 0, 0xffff_ffff, 0xffff_ffff)), 0);
      return guest;
    }

    const asking = (ask: (guest: Guest) => Promise<void>) => async () => {
      const guest = await start();
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
      'makes files as the user who asks, and may still do what that user may not',
      asking(async (guest) => {
        await chown(served, 0, 0);
        const create = Buffer.concat([u32(2, 0o4640, 0, 0), text('theirs')]);
        assert.equal((await guest.ask(op.create, root, create, 1234)).error, 0); // its kernel has allowed it
        const { uid, gid, mode } = await stat(join(served, 'theirs'));
        assert.deepEqual([uid, gid, mode & 0o7777], [1234, 1234, 0o4640]);
      }),
    );

    test(
      'acts as root, and as nobody who asked before, where a request does not say who asks',
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

    test('ends at a message that is too short or too long to be one', async () => {
      for (const length of [0, 39, 2 ** 20]) {
        const guest = await start();
        guest.send(Buffer.concat([u32(length), Buffer.alloc(60)]));
        await guest.ended;
        assert.match(guest.said, /a request of \d+ bytes/);
      }
    });

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
