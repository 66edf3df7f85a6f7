import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  statfs,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:http';
import { PassThrough } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type WebSocket, WebSocketServer } from 'ws';
import { channel } from '#api/exec.ts';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { createClient } from '../client.ts';
import { copyCommand, parsePlace, transformOf } from './copy-command.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { unpackArchive } from './unpack-archive.ts';

interface EntryOptions {
  readonly type?: string;
  readonly link?: string;
  readonly mode?: number;
  readonly content?: string;
  /** Size that the entry claims; default: that of its content. */
  readonly size?: number;
}

/** One entry of a tar archive (ustar), with any name. */
function entry(name: string, { type = '0', link = '', mode = 0o644, content = '', size }: EntryOptions = {}): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, chars: number) =>
    header.write(`${value.toString(8).padStart(chars - 1, '0')}\0`, at);
  header.write(name, 0);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size ?? content.length, 124, 12);
  octal(0, 136, 12);
  header.write('        ', 148);
  header.write(type, 156);
  header.write(link, 157);
  header.write('ustar\0', 257);
  header.write('00', 263);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  header.write(' ', 155);
  return Buffer.concat([header, Buffer.from(content), Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

/** Unpacks the entries beside a directory that they must not reach. */
async function unpacked(...entries: readonly Buffer[]) {
  const root = await mkdtemp(join(tmpdir(), 'podvm-cp-'));
  const into = join(root, 'into');
  const outside = join(root, 'outside');
  await mkdir(into);
  await mkdir(outside);
  await writeFile(join(root, 'secret'), 'secret');
  const archive = async (output: (bytes: Buffer) => Promise<void>) =>
    await output(Buffer.concat([...entries, Buffer.alloc(1024)]));
  const odd = await unpackArchive(archive, into).catch((error: unknown) => error);
  return {
    root,
    into,
    odd,
    escaped: async () => [
      ...(await readdir(outside)),
      ...(await readdir(root)).filter((name) => !['into', 'outside', 'secret'].includes(name)),
    ],
    secret: () => readFile(join(root, 'secret'), 'utf8'),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}

const needsRoot = process.getuid?.() === 0 ? false : 'needs root';

/** Unpacks an archive without an end on a file system of its own. */
async function unpackedEndless(options: string, begin: Buffer, next: (at: number) => Buffer) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-cp-'));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true }));
  await run('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory]);
  undo.defer(async () => void (await run('umount', [directory])));
  const archive = async (output: (bytes: Buffer) => Promise<void>) => {
    await output(begin);
    for (let at = 0; ; at += 1) await output(next(at));
  };
  const error: unknown = await unpackArchive(archive, directory).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof PodvmError);
  return { error, left: await statfs(directory) };
}

const bytes = Buffer.alloc(65_536, 'x');

describe('unpackArchive() of an archive without an end', { skip: needsRoot, timeout: 120_000 }, () => {
  it('leaves room on the disk', async () => {
    const large = entry('large', { size: 8 * 1024 ** 3 - 1 });
    const { error, left } = await unpackedEndless('size=64m', large, () => bytes);
    assert.match(error.message, /^Cannot copy the archive: it would leave less than 3 MiB free on the disk$/);
    assert.match(error.fix ?? '', /tar -tv/);
    assert.ok(left.bavail > 0, `${left.bavail} blocks are left`);
  });

  it('leaves room for files', async () => {
    const names = (at: number) => Buffer.concat(Array.from({ length: 64 }, (_, each) => entry(`${at}-${each}`)));
    const { error, left } = await unpackedEndless('size=64m,nr_inodes=20k', entry('first'), names);
    assert.match(error.message, /would leave less than room for 10\d\d files free on the disk$/);
    assert.ok(left.ffree > 0);
  });

  it('ends when it is none', async () => {
    const { error } = await unpackedEndless('size=64m', entry('file'), () => bytes);
    assert.match(error.message, /^Cannot copy the archive: .*Skipping to next header$/);
  });

  it('stays within its memory, and ends with tar', async () => {
    const name = entry('name', { type: 'x', size: 3 * 1024 ** 3 });
    const { error } = await unpackedEndless('size=64m', name, () => bytes);
    assert.match(error.message, /^Cannot copy the archive: .*memory exhausted/);
  });
});

describe('unpackArchive()', () => {
  it('refuses names that leave the directory, and creates nothing for them', async () => {
    await using it = await unpacked(entry('../outside/x', { content: 'x' }), entry('a/../../outside/y'));
    assert.match(String(it.odd), /Cannot copy the archive/);
    assert.deepEqual(await it.escaped(), []);
  });

  it('extracts absolute names inside the directory', async () => {
    await using it = await unpacked(entry('/outside/x', { content: 'x' }));
    assert.equal(await readFile(join(it.into, 'outside/x'), 'utf8'), 'x');
  });

  it('follows no link out of the directory', async () => {
    await using it = await unpacked(
      entry('door', { type: '2', link: '../outside' }),
      entry('door/x', { content: 'x' }),
      entry('name', { type: '2', link: '../secret' }),
      entry('name', { content: 'overwritten' }),
      entry('hard', { type: '1', link: '../secret' }),
      entry('hard', { content: 'overwritten' }),
    );
    assert.deepEqual(await it.escaped(), []);
    assert.equal(await it.secret(), 'secret');
  });

  it('keeps links as links, and removes set-user bits, devices and FIFOs', async () => {
    await using it = await unpacked(
      entry('program', { mode: 0o6755, content: 'x' }),
      entry('folder/', { type: '5', mode: 0o2755 }),
      entry('folder/pipe', { type: '6' }),
      entry('link', { type: '2', link: '/etc/passwd' }),
    );
    assert.deepEqual(it.odd, ['folder/pipe']);
    assert.equal((await lstat(join(it.into, 'program'))).mode & 0o7000, 0);
    assert.equal((await lstat(join(it.into, 'folder'))).mode & 0o7000, 0);
    assert.deepEqual(await readdir(join(it.into, 'folder')), []);
    assert.equal(await readlink(join(it.into, 'link')), '/etc/passwd');
  });
});

/** Serves `exec` by running the command on this host instead of in a pod. */
async function openPod() {
  const root = await mkdtemp(join(tmpdir(), 'podvm-cp-'));
  const socketPath = join(root, 'podvm.sock');
  const server = createServer();
  new WebSocketServer({ server }).on('connection', (socket, { url = '' }) => {
    const { searchParams } = new URL(url, 'http://podvm');
    const [program = '', ...args] = searchParams.getAll('command');
    execHere(socket, program, args, join(root, 'bin'));
  });
  await once(server.listen(socketPath), 'listening');
  const said = { stdout: [] as Buffer[], stderr: '' };
  const stdin = new PassThrough();
  const terminal = {
    stdin,
    stdout: new PassThrough().on('data', (chunk: Buffer) => said.stdout.push(chunk)),
    stderr: new PassThrough().on('data', (chunk: Buffer) => (said.stderr += chunk.toString())),
    hasColour: false,
    outputGone: new AbortController().signal,
  } as unknown as Terminal; // SAFE: as much of one as the command uses
  const copy = (from: string, to: string, signal = new AbortController().signal) =>
    copyCommand(createClient(socketPath), [from, to], {}, { terminal, signal });
  return {
    root,
    pod: join(root, 'pod'),
    host: join(root, 'host'),
    /** Replaces the container's tar, whose archives may be anything. */
    async replaceTar(script: string) {
      await mkdir(join(root, 'bin'));
      await writeFile(join(root, 'bin/tar'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    },
    copy,
    said,
    stdin,
    terminal,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await rm(root, { recursive: true });
    },
  };
}

function execHere(socket: WebSocket, program: string, args: readonly string[], ownPrograms: string): void {
  const child = spawn(program, args, { env: { ...process.env, PATH: `${ownPrograms}:${process.env['PATH']}` } });
  const send = (to: number, body: Buffer) => socket.send(Buffer.concat([Buffer.from([to]), body]));
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => send(channel.stdout, chunk));
  child.stderr.on('data', (chunk: Buffer) => send(channel.stderr, chunk));
  child.once('close', (exitCode) => send(channel.status, Buffer.from(JSON.stringify({ exitCode }))));
  socket.on('message', (frame: Buffer) => {
    if (frame[0] === channel.stdin) child.stdin.write(frame.subarray(1));
    else if (frame[0] === channel.close) child.stdin.end();
  });
}

describe('copyCommand()', () => {
  it('copies a directory under a new name, into an existing one, and over existing files', async () => {
    await using it = await openPod();
    await mkdir(join(it.host, 'tree/below'), { recursive: true });
    await mkdir(it.pod);
    await writeFile(join(it.host, 'tree/below/a file'), 'one');
    await chmod(join(it.host, 'tree/below/a file'), 0o755);
    await it.copy(join(it.host, 'tree'), `web:${it.pod}/new`);
    await it.copy(join(it.host, 'tree'), `web:${it.pod}`);
    for (const name of ['new', 'tree']) {
      const file = join(it.pod, name, 'below/a file');
      assert.equal(await readFile(file, 'utf8'), 'one');
      assert.equal((await stat(file)).mode & 0o777, 0o755);
    }
    await it.copy(`web:${it.pod}/new/below`, join(it.host, 'back'));
    assert.deepEqual(await readdir(join(it.host, 'back')), ['a file']);
    await writeFile(join(it.pod, 'new/below/a file'), 'two');
    await it.copy(`web:${it.pod}/new/below/a file`, join(it.host, 'back'));
    assert.equal(await readFile(join(it.host, 'back/a file'), 'utf8'), 'two');
    await writeFile(join(it.pod, 'new/below/another'), '');
    await it.copy(`web:${it.pod}/new/below`, join(it.host, 'tree'));
    assert.deepEqual((await readdir(join(it.host, 'tree/below'))).sort(), ['a file', 'another']);
    assert.deepEqual((await readdir(it.host)).sort(), ['back', 'tree'], 'nothing is left beside');
    assert.equal(it.said.stderr, '');
  });

  it('copies the contents of a directory, large files, and archives', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(join(it.pod, 'to'), { recursive: true });
    const large = Buffer.alloc(3_000_000, 'x');
    await writeFile(join(it.pod, 'large'), large);
    await it.copy(`web:${it.pod}/large`, join(it.host, 'large'));
    assert.ok((await readFile(join(it.host, 'large'))).equals(large));
    await it.copy(`web:${it.pod}/.`, join(it.host, 'all'));
    assert.deepEqual((await readdir(join(it.host, 'all'))).sort(), ['large', 'to']);
    await it.copy(`web:${it.pod}/large`, '-');
    it.stdin.end(Buffer.concat(it.said.stdout));
    await it.copy('-', `web:${it.pod}/to`);
    assert.ok((await readFile(join(it.pod, 'to/large'))).equals(large));
  });

  it('keeps a sparse file sparse, also over an existing one', async () => {
    await using it = await openPod();
    await Promise.all([
      mkdir(join(it.pod, 'tree'), { recursive: true }),
      mkdir(join(it.host, 'tree'), { recursive: true }),
    ]);
    await writeFile(join(it.pod, 'tree/disk'), 'x');
    await truncate(join(it.pod, 'tree/disk'), 1024 ** 4);
    await writeFile(join(it.host, 'tree/disk'), 'before');
    await it.replaceTar('exec /usr/bin/tar --sparse "$@"');
    await it.copy(`web:${it.pod}/tree`, it.host);
    const { size, blocks } = await stat(join(it.host, 'tree/disk'));
    assert.deepEqual([size, blocks < 64], [1024 ** 4, true]);
    assert.deepEqual(await readdir(join(it.host, 'tree')), ['disk']);
  });

  it('warns of a file that changes while it is copied, and copies it', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(it.pod);
    await writeFile(join(it.pod, 'log'), 'one line\n');
    await it.replaceTar('/usr/bin/tar "$@"; echo "tar: log: file changed as we read it" >&2; exit 1');
    await it.copy(`web:${it.pod}/log`, it.host);
    assert.equal(await readFile(join(it.host, 'log'), 'utf8'), 'one line\n');
    const said = 'podvm: warning: files changed while they were copied, and their copies may be incomplete: log\n';
    assert.equal(it.said.stderr, said);
  });

  it('warns of a file that shrinks while it is copied, and copies it', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(it.pod);
    await writeFile(join(it.pod, 'log'), Buffer.alloc(4 * 1024 ** 2, 'x'));
    // A real tar that stops at its first record, and reads on when the file has become shorter.
    const shrink = `truncate -s 1M ${join(it.pod, 'log')}`;
    await it.replaceTar(`PATH=/usr/bin:/bin exec tar --checkpoint=1 --checkpoint-action=exec="${shrink}" "$@"`);
    await it.copy(`web:${it.pod}/log`, it.host);
    assert.equal((await stat(join(it.host, 'log'))).size, 4 * 1024 ** 2);
    assert.match(it.said.stderr, /^podvm: warning: files changed while they were copied, .*: log\n$/);
  });

  it('refuses what tar could not read, though the rest is there', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(it.pod);
    await writeFile(join(it.pod, 'log'), '');
    const words = ['tar: log: file changed as we read it', 'tar: secret: Cannot open: Permission denied'];
    await it.replaceTar(`/usr/bin/tar "$@"; printf '%s\\n' "${words.join('" "')}" >&2; exit 1`);
    await assert.rejects(it.copy(`web:${it.pod}/log`, it.host), { message: /^Cannot copy web:/ });
    assert.deepEqual(await readdir(it.host), []);
  });

  it('names some of many files that it does not copy', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(join(it.pod, 'pipes'), { recursive: true });
    const pipes = Array.from({ length: 25 }, (_, at) => join(it.pod, 'pipes', String(at)));
    await run('mkfifo', pipes);
    await it.copy(`web:${it.pod}/pipes`, it.host);
    const lines = it.said.stderr.trimEnd().split('\n');
    assert.equal(lines.length, 21);
    assert.match(lines[20] ?? '', /not copied, .*: 5 more$/);
  });

  it('shows the received size on a terminal, and clears it', async () => {
    await using it = await openPod();
    await mkdir(it.host);
    await mkdir(it.pod);
    await writeFile(join(it.pod, 'file'), 'x');
    it.terminal.stderr.isTTY = true;
    await it.copy(`web:${it.pod}/file`, it.host);
    const clear = '\r\u001B[K';
    assert.equal(it.said.stderr, `${clear}podvm: 0 MiB copied${clear}`);
  });

  it('reports what it cannot copy, and leaves nothing', async () => {
    await using it = await openPod();
    await mkdir(join(it.host, 'directory'), { recursive: true });
    await mkdir(it.pod);
    await writeFile(join(it.pod, 'directory'), '');
    const failing = (from: string, to: string, message: RegExp) => assert.rejects(it.copy(from, to), { message });
    await failing(`web:${it.pod}/nosuch`, it.host, /^Cannot copy web:.*nosuch: tar: .*nosuch/);
    await failing(join(it.host, 'nosuch'), `web:${it.pod}`, /there is no such file$/);
    await failing(join(it.host, 'directory'), `web:${it.pod}/no/such/place`, /^Cannot copy web:/);
    await failing(`web:${it.pod}/directory`, it.host, /one of the two is a directory$/);
    await failing(`web:${it.pod}/directory`, join(it.host, 'no/such'), /its directory cannot be written/);
    await Promise.all([
      mkdir(join(it.pod, 'tree/\u001B[2J'), { recursive: true }),
      mkdir(join(it.host, 'directory/tree'), { recursive: true }),
    ]);
    await writeFile(join(it.host, 'directory/tree/\u001B[2J'), '');
    await failing(`web:${it.pod}/tree`, join(it.host, 'directory'), /^[^\p{Cc}]*2J: one of the two is a directory$/u);
    await failing('a', 'b', /one of the two must be POD:PATH/);
    await run('mkfifo', [join(it.pod, 'pipe')]);
    await failing(`web:${it.pod}/pipe`, it.host, /sent nothing of that name/);
    assert.match(it.said.stderr, /not copied, .*: pipe\n/);
    const part = 'a'.repeat(135);
    const name = entry('././@LongLink', { type: 'L', content: `${`${part}/`.repeat(30)}\0` });
    const deep = Buffer.concat([name, entry('a', { type: '5', mode: 0o755 }), Buffer.alloc(1024)]);
    await run('tar', ['-C', it.pod, '-xf', '-'], { input: deep });
    await failing(`web:${it.pod}/${part}`, it.host, /a path in it is too long/);
    await run('rm', ['-rf', join(it.pod, part)]);
    const ended = AbortSignal.abort(new Error('ended'));
    await assert.rejects(it.copy(`web:${it.pod}/directory`, join(it.host, 'x'), ended), { message: 'ended' });
    assert.deepEqual(await readdir(it.host), ['directory']);
  });
});

describe('podvm cp', () => {
  it('distinguishes pods and paths', () => {
    assert.deepEqual(parsePlace('web:/etc'), { kind: 'pod', pod: 'web', path: '/etc' });
    assert.deepEqual(parsePlace('shop/web:a:b'), { kind: 'pod', pod: 'shop/web', path: 'a:b' });
    assert.deepEqual(parsePlace('web:'), { kind: 'pod', pod: 'web', path: '.' });
    for (const path of ['./web:x', '/a:b', 'plain', '../x:y', 'A:b'])
      assert.deepEqual(parsePlace(path), { kind: 'host', path });
    assert.deepEqual(parsePlace('-'), { kind: 'archive' });
  });

  it('renames with any characters in both names', async () => {
    const root = await mkdtemp(join(tmpdir(), 'podvm-cp-'));
    for (const [from, to] of [
      ['a.b*[c]^$', 'plain'],
      ['plain', 'a&b\\c,d'],
      ['a\\b', 'x y'],
    ] as const) {
      await mkdir(join(root, from));
      await writeFile(join(root, from, 'inner'), '');
      const args = ['-C', root, '--transform', transformOf(from, to), '--no-unquote', '-cf', '-', '--', from];
      const { stdout } = await run('sh', ['-c', 'tar "$@" | tar -t --quoting-style=literal', '-', ...args]);
      assert.deepEqual(stdout.trim().split('\n'), [`${to}/`, `${to}/inner`]);
      await rm(join(root, from), { recursive: true });
    }
    await rm(root, { recursive: true });
  });
});
