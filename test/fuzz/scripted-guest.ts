import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readlink, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { buildRoot, builtProgram } from '../built-program.ts';

/** Operations of FUSE (linux/fuse.h). */
export const op = {
  lookUp: 1,
  forget: 2,
  getAttributes: 3,
  setAttributes: 4,
  symlink: 6,
  makeNode: 8,
  makeDirectory: 9,
  removeFile: 10,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  openDirectory: 27,
  readDirectory: 28,
  getLock: 31,
  setLock: 32,
  setLockWaiting: 33,
  create: 35,
  rename2: 45,
};
/** Errors of its replies (errno(3)). */
export const errno = {
  notPermitted: 1,
  noEntry: 2,
  badHandle: 9,
  access: 13,
  exists: 17,
  invalid: 22,
  readOnly: 30,
  nameTooLong: 36,
  noSuchCall: 38,
  stale: 116,
};

/** The real file server, compiled with address and undefined-behaviour checks, and a scripted guest. */
export const whyNoServer = !existsSync(join(buildRoot, 'usr/bin/gcc'))
  ? 'no compiler: run `podvm setup`'
  : process.getuid?.() === 0
    ? undefined
    : 'needs root';

export const rootNode = 1;

export const u32 = (...values: number[]) => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, 4 * at);
  return bytes;
};
export const u64 = (value: number) => u32(value % 2 ** 32, Math.floor(value / 2 ** 32));
export const text = (value: string) => Buffer.from(`${value}\0`);

/** One request, as a kernel lays it out. */
export function message(opcode: number, unique: number, node: number, body: Buffer, user: number): Buffer {
  const header = [u32(40 + body.length, opcode), u64(unique), u64(node), u32(user, user, 1, 0)];
  return Buffer.concat([...header, body]);
}

export interface Reply {
  /** Positive errno, or 0. */
  readonly error: number;
  readonly body: Buffer;
}

export interface Asked {
  readonly opcode: number;
  readonly node: number;
  readonly body?: Buffer;
  readonly user?: number;
}

/** The other end of the program's connection. */
export class Guest {
  readonly #process: ChildProcess;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, PromiseWithResolvers<Reply>>();
  readonly ended: Promise<unknown>;
  said = '';
  #received = Buffer.alloc(0);
  #unique = 0;

  constructor(process: ChildProcess, socket: Socket) {
    this.#process = process;
    this.#socket = socket;
    this.ended = once(process, 'exit');
    void this.ended.then(() => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(`the server has ended: ${this.said}`));
    });
    process.stderr?.on('data', (bytes: Buffer) => (this.said += bytes.toString()));
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', () => undefined);
  }

  /** The server's process. */
  get serverPid(): number {
    assert.ok(this.#process.pid !== undefined);
    return this.#process.pid;
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  ask(opcode: number, node: number, body = Buffer.alloc(0), user = 0): Promise<Reply> {
    return this.askTogether([{ opcode, node, body, user }])[0] ?? assert.fail();
  }

  /** Sends requests in one piece. */
  askTogether(requests: readonly Asked[]): readonly Promise<Reply>[] {
    const [messages, replies]: [Buffer[], Promise<Reply>[]] = [[], []];
    for (const { opcode, node, body = Buffer.alloc(0), user = 0 } of requests) {
      const unique = (this.#unique += 1);
      const reply = Promise.withResolvers<Reply>();
      this.#waiting.set(unique, reply);
      messages.push(message(opcode, unique, node, body, user));
      replies.push(reply.promise);
    }
    this.send(Buffer.concat(messages));
    return replies;
  }

  async errorOf(opcode: number, node: number, body = Buffer.alloc(0)): Promise<number> {
    return (await this.ask(opcode, node, body)).error;
  }

  /** Node of a name. */
  async nodeOf(name: string, directory = rootNode): Promise<number> {
    const { error, body } = await this.ask(op.lookUp, directory, text(name));
    assert.equal(error, 0, `${name} is there`);
    return Number(body.readBigUInt64LE(0));
  }

  async open(node: number, flags: number): Promise<number> {
    const { error, body } = await this.ask(op.open, node, u32(flags, 0));
    assert.equal(error, 0);
    return Number(body.readBigUInt64LE(0));
  }

  /** Returns the paths below a directory that the program has open. */
  async openBelow(directory: string): Promise<readonly string[]> {
    const fds = `/proc/${this.#process.pid}/fd`;
    const paths = await Promise.all(
      (await readdir(fds)).map((fd) => readlink(join(fds, fd)).catch(() => '')), // closed meanwhile
    );
    return paths.filter((path) => path.startsWith(`${directory}/`));
  }

  /** Closes the connection. Asserts that the program ends without errors. */
  async leave(): Promise<void> {
    this.#socket.end(); // not with a reset: replies may be on their way
    await this.ended;
    this.#socket.destroy();
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
      this.#waiting.get(unique)?.resolve(reply);
      this.#waiting.delete(unique);
    }
  }
}

/** A directory with the compiled server, and what it serves: a small file system, as `allocate` may ask for anything. */
export interface ServerBench extends AsyncDisposable {
  readonly directory: string;
  readonly served: string;
  /** Starts a server with these words on its command line, and its guest. */
  start(...words: readonly string[]): Promise<Guest>;
}

const init = 26;

export async function openServerBench(): Promise<ServerBench> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
  const served = join(directory, 'served');
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true }));
  await mkdir(served);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', served]);
  undo.defer(async () => void (await run('umount', [served])));
  await builtProgram({
    repo: join(import.meta.dirname, '../..'),
    buildRoot,
    outFile: join(directory, 'files'),
    entry: 'src/file-server/main.ts',
    calls: 'fileServer',
    sanitize: true,
    signal: AbortSignal.timeout(120_000),
  });
  let guests = 0;
  const start = async (...words: readonly string[]) => {
    const path = join(directory, `socket-${(guests += 1)}`);
    const listener = createServer().listen(path);
    await once(listener, 'listening');
    const accepted = once(listener, 'connection') as Promise<[Socket]>; // SAFE: net.Server's event
    const theirs = connect(path);
    const [[socket]] = await Promise.all([accepted, once(theirs, 'connect')]);
    listener.close();
    theirs.pause();
    const stdio = [theirs, 'ignore', 'pipe'] as const;
    const program = spawn(join(directory, 'files'), [served, '65536', 'unjailed', ...words], { stdio: [...stdio] });
    await once(program, 'spawn');
    theirs.destroy();
    const guest = new Guest(program, socket);
    assert.equal(await guest.errorOf(init, 0, u32(7, 41, 0, 0xffff_ffff, 0xffff_ffff)), 0);
    return guest;
  };
  const owned = undo.move();
  return { directory, served, start, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
