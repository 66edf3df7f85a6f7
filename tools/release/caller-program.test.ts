import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempDisposable, readlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type AskedRun, openServingNode, testedKey } from '#cli/served/testing/serving-node.ts';
import { poll } from '#host/wait.ts';
import { buildCaller } from './caller-program.ts';
import { findBuildRoot } from './release.ts';

const repo = join(import.meta.dirname, '../..');
const root = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
const buildRoot = await findBuildRoot(join(root, 'parts')).catch(() => undefined);
const reason = buildRoot === undefined ? 'no compiler: run `podvm setup`' : undefined;
const isRequired = process.env['PODVM_REQUIRE_VM'] === '1';

/** Executed in the place of Node and the program: prints that it was, and its arguments. */
const program = ['/bin/sh', '-c', 'echo here "$@"', 'podvm'];

const isTrue = (test: () => boolean) => poll(() => Promise.resolve(test() || undefined), { everyMs: 5 });

describe('the caller', { skip: isRequired ? false : reason, timeout: 120_000 }, () => {
  let work: Awaited<ReturnType<typeof mkdtempDisposable>>;
  let here: string;
  const caller = () => join(work.path, 'caller');
  before(async () => {
    work = await mkdtempDisposable(join(tmpdir(), 'podvm-caller-'));
    here = await readlink('/proc/self/ns/mnt');
    assert.ok(buildRoot !== undefined);
    await buildCaller({ repo, buildRoot }, caller(), AbortSignal.timeout(60_000));
  });
  after(() => work[Symbol.asyncDispose]());

  const start = (socketPath: string, words: readonly string[], key = testedKey) => {
    const args = [socketPath, key, String(words.length), ...program, ...words];
    const child = spawn(caller(), args, { cwd: work.path, stdio: 'pipe' });
    return { child, ended: endOf(child) };
  };

  it('prints what the node returns, and ends with its exit code', async () => {
    const large = 'x'.repeat(1_000_000);
    await using node = await openServingNode((run) => {
      run.print('first\n');
      run.print('second\n', 'stderr');
      run.print(large);
      run.tell({ event: 'finished', exitCode: 3 });
    }, here);
    const words = ['run', '--rm', 'busybox', 'sh', '-c', 'echo "a  b"', 'ünï\n', ''];
    const { code, stdout, stderr } = await start(node.socketPath, words).ended;
    assert.deepEqual([code, stderr], [3, 'second\n']);
    assert.ok(stdout === `first\n${large}`, `${stdout.length} characters`);
    const [request = ''] = node.runs[0]?.messages ?? [];
    const { args } = JSON.parse(JSON.parse(request).files[0].text).spec.containers[0];
    assert.deepEqual(args, words.slice(3));
  });

  it('executes the program if the node does not take the command, or is not there, or is none', async () => {
    await using node = await openServingNode(() => undefined, here);
    await using others = new AsyncDisposableStack();
    const said = [
      '',
      'HTTP/1.1 404 Not Found\r\n\r\n',
      'HTTP/1.1 101 Yes\r\n\r\n',
      'HTTP/1.1 101 Yes\r\n\r\n\x82\x00',
      'junk',
    ];
    const strange = await Promise.all(
      said.map((text, at) => others.use(openStranger(join(work.path, `${at}`), text)).path),
    );
    const cases: readonly (readonly [string, readonly string[], string?])[] = [
      [node.socketPath, ['run', '-it', 'busybox']],
      [node.socketPath, ['run', 'busybox', 'a  b'], 'another-build'],
      [node.socketPath, ['run', 'caller']], // the name of a file
      [join(work.path, 'missing.sock'), ['run', 'busybox']],
      [`/${'x'.repeat(200)}`, ['run', 'busybox']],
      [node.socketPath, ['run', 'x'.repeat(100_000), ...Array.from({ length: 12 }, () => 'y'.repeat(100_000))]],
      ...strange.map((path) => [path, ['run', 'busybox']] as const),
    ];
    for (const [path, words, key] of cases) {
      const { code, stdout, stderr } = await start(path, words, key).ended;
      assert.deepEqual([code, stderr], [0, '']);
      assert.ok(stdout === `here ${words.join(' ')}\n`, stdout.slice(0, 200));
    }
    assert.equal(node.runs.length, 0);
  });

  it('passes signals on, and says when the node is lost', async () => {
    await using node = await openServingNode((run) => run.print('up\n'), here);
    const { child, ended } = start(node.socketPath, ['run', 'busybox']);
    await once(child.stdout, 'data');
    child.kill('SIGTERM');
    await isTrue(() => node.runs[0]?.messages[1] === '{"command":"terminate"}');
    node.kill();
    const { code, stderr } = await ended;
    assert.equal(code, 125);
    assert.match(
      stderr,
      /^podvm: stopping [^]*Cannot follow the command any longer: the podvm that served it has ended\n {2}fix: /,
    );
  });

  it('runs with a closed standard output', async () => {
    await using node = await openServingNode((run) => {
      run.print('not read\n');
      run.print('up\n', 'stderr');
    }, here);
    const args = [node.socketPath, testedKey, '2', ...program, 'run', 'busybox'];
    const child = spawn('/bin/sh', ['-c', 'exec "$@" >&-', 'sh', caller(), ...args], { cwd: work.path, stdio: 'pipe' });
    const ended = endOf(child);
    await once(child.stderr, 'data');
    child.kill('SIGTERM'); // follows on the connection whatever was written into it before
    await isTrue(() => node.runs[0]?.messages[1] === '{"command":"terminate"}');
    node.runs[0]?.tell({ event: 'finished', exitCode: 3 });
    const stderr = 'up\npodvm: stopping (again to kill at once)\n';
    assert.deepEqual(await ended, { code: 3, stdout: '', stderr });
  });

  it('has the pod terminated when its output has no reader, and waits for that', async () => {
    const printed = Promise.withResolvers<AskedRun>();
    await using node = await openServingNode((run) => printed.resolve(run), here);
    const { child, ended } = start(node.socketPath, ['run', 'busybox']);
    const run = await printed.promise;
    child.stdout.destroy();
    await isTrue(() => {
      if (run.messages.length === 1) run.print('not read\n');
      return run.messages.length > 1;
    });
    assert.equal(run.messages[1], '{"command":"terminate"}');
    assert.equal(child.exitCode, null);
    run.tell({ event: 'finished', exitCode: 0 });
    assert.equal((await ended).code, 141);
  });
});

async function endOf(child: ChildProcessWithoutNullStreams) {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].on('data', (text: Buffer) => (said[name] += text.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...said };
}

/** A server that says something else than a node, and ends the connection. */
function openStranger(path: string, text: string) {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => socket.end(Buffer.from(text, 'latin1')));
  });
  const listening = once(server.listen(path), 'listening');
  return {
    path: listening.then(() => path),
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}
