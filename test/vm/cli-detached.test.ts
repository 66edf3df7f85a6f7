import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { identify, isRunning, type ProcessIdentity } from '#host/process/process-identity.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { openWindow } from './cli-window.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base';
const script = 'trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.1; cat /tmp/said 2>&-; done';

/** The node in the background, which `podvm` names in its state directory. */
async function nodeOf({ root }: CliNode): Promise<ProcessIdentity> {
  const { pid } = JSON.parse(await readFile(join(root, 'node.ready'), 'utf8')) as { pid: number };
  const found = await identify(pid);
  assert.ok(found !== undefined);
  return found;
}

async function untilGone(node: ProcessIdentity): Promise<void> {
  const signal = AbortSignal.timeout(60_000);
  const isGone = await poll(async () => ((await isRunning(node)) ? undefined : true), { everyMs: 50, signal });
  assert.ok(isGone, `process ${node.pid} runs on`);
}

describe('podvm with a node in the background', { skip, timeout: 480_000 }, () => {
  let cli: CliNode;
  before(async () => {
    cli = await openCliNode({ isSetUp: true, startsNode: true });
  });
  after(async () => {
    await cli.type(['uninstall']);
    await cli[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: cli.root, ids: [] }), []);
  });

  it('is one node for two concurrent commands, whose pods outlive the terminal', async () => {
    assert.match((await cli.type(['ps', '-a'])).stdout, /^NAMESPACE.*\n$/);
    await assert.rejects(readFile(join(cli.root, 'node.ready')), 'a command that reads starts no node');
    // Its end closes the terminal, as that of a window does.
    const line = `./podvm run -d --name web -p 127.0.0.1:18097:80 ${image} sh -c '${script}'`;
    const env = { ...process.env, PODVM_ROOT: cli.root, PODVM_POOL: '0', SHELL: '/bin/sh' };
    const terminal = spawn('script', ['-qec', line, '/dev/null'], { cwd: repo, env, stdio: 'ignore' });
    const closed = new Promise<number | null>((resolve) => terminal.once('close', resolve));
    const [other, code] = await Promise.all([
      cli.type(['run', '-d', '--rm', '--name', 'other', '--network', 'none', image, 'sleep', '1000']),
      closed,
    ]);
    assert.deepEqual([other.code, other.stdout, code], [0, 'other\n', 0], other.stderr);
    const { stdout } = await cli.type(['ps']);
    assert.match(stdout, /\ndefault +web +1\/1 +Running /);
    assert.match(stdout, /\ndefault +other +1\/1 +Running /);
    const printed = async () => (await cli.type(['logs', 'web'])).stdout || undefined;
    assert.equal(await poll(printed, { everyMs: 100, signal: AbortSignal.timeout(60_000) }), 'up\n');
  });

  it('Ctrl-C ends the pods of its own command, and no others', async () => {
    const typed = cli.start(['run', '--name', 'mine', '--network', 'none', image, 'sh', '-c', script]);
    await typed.shows(/up\n/);
    typed.child.kill('SIGINT');
    assert.equal((await typed.ended).code, 3);
    assert.match((await cli.type(['ps', '-a'])).stdout, /\ndefault +mine +0\/1 +Terminated \(3\) /);
    assert.match((await cli.type(['ps'])).stdout, /\ndefault +web +1\/1 +Running /);
  });

  it('attach shows the output, and leaves the pod running', async () => {
    const flags = ['-d', '-i', '--rm', '--name', 'reader', '--network', 'none'];
    await cli.type(['run', ...flags, image, 'sh', '-c', 'read word; echo got $word; exit 5']);
    await cli.type(['exec', 'web', '--', 'sh', '-c', 'echo seen >/tmp/said']);
    const looking = cli.start(['attach', '--no-stdin', 'web']);
    await looking.shows(/seen\n/);
    await cli.type(['exec', 'web', '--', 'rm', '/tmp/said']);
    looking.child.kill('SIGINT');
    assert.equal((await looking.ended).code, 0);
    assert.deepEqual(await cli.type(['attach', 'reader'], 'something\n'), {
      code: 5,
      stdout: 'got something\n',
      stderr: '',
    });
    assert.match((await cli.type(['ps'])).stdout, /\ndefault +web +1\/1 +Running /);
  });

  it('Ctrl-P Ctrl-Q leaves a pod in the terminal to the node, and attach continues with what is typed at once', async () => {
    const running = `./podvm run --rm -it --name left --network none ${image} sh`;
    const environment = { PODVM_ROOT: cli.root, PODVM_POOL: '0', PODVM_BACKGROUND: 'on' };
    await using window = openWindow(`${running}; echo code $?; ./podvm attach left; echo code $?`, environment);
    await window.shows(/\/ # /);
    window.type('\u0010');
    window.type('\u0011');
    await window.shows(/podvm: detached from left, which keeps running\r\n[^]*code 0\r\n/);
    window.type('exit 4\r');
    await window.shows(/code 4\r\n/);
  });

  it('port-forward reaches what listens on 127.0.0.1 in the pod', async () => {
    const httpd = ['sh', '-c', 'httpd -p 127.0.0.1:80 -h /etc'];
    assert.equal((await cli.type(['exec', 'web', '--', ...httpd])).code, 0);
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const address = taken.address();
    assert.ok(typeof address === 'object' && address !== null);
    const refused = await cli.type(['port-forward', 'web', `${address.port}:80`]);
    assert.match(refused.stderr, /Cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE.*\n {2}fix: /);
    taken.close();
    const typed = cli.start(['port-forward', 'web', ':80', ':81']);
    await typed.shows(/-> 80\n[^]*-> 81\n/);
    const [, port, closedPort] = /:(\d+) -> 80\n.*:(\d+) -> 81\n/.exec(typed.stdout()) ?? [];
    const { stdout } = await run('curl', ['-fsS', `http://127.0.0.1:${port}/hostname`]);
    assert.equal(stdout, 'web\n');
    await assert.rejects(run('curl', ['-fsS', `http://127.0.0.1:${closedPort}/`]));
    await typed.shows(/Cannot connect to .*81/);
    typed.child.kill('SIGINT');
    assert.equal((await typed.ended).code, 0);
  });

  it('top lists what pods use', async () => {
    const { code, stdout } = await cli.type(['top', 'web']);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^POD .*\ndefault\/web +\d+\.\d +[1-9]\d*\.\dMi( +(-|[\d.]+Mi)){2} +[1-9]\d*\.\dMi +-?[\d.]+Mi\n$/,
    );
  });

  it('cp copies files, directories and archives both ways', async () => {
    const inRoot = (name: string) => join(cli.root, name);
    await mkdir(inRoot('tree/below'), { recursive: true });
    await writeFile(inRoot('tree/below/a file'), 'one\n');
    await chmod(inRoot('tree/below/a file'), 0o755);
    assert.deepEqual(await cli.type(['cp', inRoot('tree'), 'web:/tmp/new']), { code: 0, stdout: '', stderr: '' });
    assert.deepEqual(await cli.type(['cp', inRoot('tree'), 'web:/tmp']), { code: 0, stdout: '', stderr: '' });
    const listed = await cli.type(['exec', 'web', '--', 'sh', '-c', 'cd /tmp; find new tree -type f -perm 755']);
    assert.equal(listed.stdout, 'new/below/a file\ntree/below/a file\n');
    assert.equal((await cli.type(['cp', 'web:/tmp/new/below', inRoot('back')])).stderr, '');
    assert.equal(await readFile(inRoot('back/a file'), 'utf8'), 'one\n');
    await cli.type(['exec', 'web', '--', 'sh', '-c', 'echo two >"/tmp/new/below/a file"']);
    assert.equal((await cli.type(['cp', 'web:/tmp/new/below/a file', inRoot('back')])).stderr, '');
    assert.equal(await readFile(inRoot('back/a file'), 'utf8'), 'two\n');
    const bytes = 3_000_000;
    await cli.type(['exec', 'web', '--', 'sh', '-c', `head -c ${bytes} /dev/zero >/tmp/large`]);
    assert.equal((await cli.type(['cp', 'web:/tmp/large', inRoot('large')])).stderr, '');
    assert.equal((await stat(inRoot('large'))).size, bytes);
    const archive = await cli.type(['cp', 'web:/tmp/new/below/a file', '-']);
    assert.equal((await cli.type(['cp', '-', 'web:/var'], archive.stdout)).stderr, '');
    assert.equal((await cli.type(['exec', 'web', '--', 'cat', '/var/a file'])).stdout, 'two\n');
    const missing = await cli.type(['cp', 'web:/nosuch', inRoot('back')]);
    assert.equal(missing.code, 125);
    assert.match(missing.stderr, /^podvm: Cannot copy web:\/nosuch: tar: .*nosuch.*\n {2}fix: /);
    const absent = await cli.type(['cp', inRoot('nosuch'), 'web:/tmp']);
    assert.match(absent.stderr, /there is no such file\n {2}fix: /);
  });

  it('cp leaves free disk space, whatever the pod sends', async () => {
    const disk = join(cli.root, 'disk');
    await mkdir(disk);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', disk]);
    try {
      await cli.type(['exec', 'web', '--', 'truncate', '-s', '7G', '/tmp/endless']);
      const { code, stderr } = await cli.type(['cp', 'web:/tmp/endless', disk]);
      assert.equal(code, 125);
      assert.match(stderr, /^podvm: Cannot copy the archive: it would leave less than 2 MiB free .*\n {2}fix: /);
      assert.deepEqual(await readdir(disk), []);
    } finally {
      await run('umount', [disk]);
    }
  });

  it('pods are stopped, kept, started again and removed', async () => {
    const waiting = cli.start(['wait', 'web']);
    assert.equal((await cli.type(['stop', 'web'])).stdout, 'default/web stopped\n');
    assert.equal((await waiting.ended).stdout, '3\n');
    assert.equal((await cli.type(['logs', '-f', 'web'])).stdout.replaceAll('seen\n', ''), 'up\nbye\n');
    assert.match((await cli.type(['inspect', 'web'])).stdout, /"exitCode": 3/);
    assert.equal((await cli.type(['rename', 'web', 'site'])).code, 0);
    assert.equal((await cli.type(['start', 'site'])).stdout, 'default/site started\n');
    assert.equal((await cli.type(['restart', 'site'])).stdout, 'default/site restarted\n');
    assert.equal((await cli.type(['exec', 'site', 'hostname'])).stdout, 'site\n');
    assert.match((await cli.type(['rm', 'site'])).stderr, /^podvm: Cannot remove site: the pod runs\n/);
    const removed = await cli.type(['rm', '-f', 'site', 'other', 'nosuch']);
    assert.equal(removed.stdout, 'default/site removed\ndefault/other removed\n');
    assert.equal(removed.code, 125);
    assert.doesNotMatch((await cli.type(['ps', '-a'])).stdout, /site|other|reader/);
  });

  it('ended pods are listed without a node, and after the node’s end', async () => {
    await cli.type(['run', '-d', '--name', 'last', '--network', 'none', image, 'sh', '-c', script]);
    await cli.start(['logs', '-f', 'last']).shows(/up\n/); // from then on it handles SIGTERM
    const node = await nodeOf(cli);
    process.kill(node.pid, 'SIGINT');
    await untilGone(node);
    const all = await cli.type(['ps', '-a']);
    assert.match(all.stdout, /\ndefault +mine +0\/1 +Terminated \(3\) /);
    assert.match(all.stdout, /\ndefault +last +0\/1 +Terminated \(3\) /);
    assert.equal((await cli.type(['logs', 'last'])).stdout, 'up\nbye\n');
    assert.equal((await cli.type(['wait', 'last'])).stdout, '3\n');
    assert.equal((await cli.type(['rm', 'last', 'mine'])).code, 0);
    assert.match((await cli.type(['ps', '-a'])).stdout, /^NAMESPACE.*\n$/);
  });

  it('ends when it is idle', async () => {
    const typed = spawn(join(repo, 'podvm'), ['run', '--rm', '--network', 'none', image, 'true'], {
      env: { ...process.env, PODVM_ROOT: cli.root, PODVM_POOL: '0', PODVM_IDLE_SECONDS: '3' },
      stdio: 'ignore',
    });
    assert.equal(await new Promise((resolve) => typed.once('close', resolve)), 0);
    await untilGone(await nodeOf(cli));
  });

  it('says why it cannot start', async () => {
    await rm(join(cli.root, 'images'), { recursive: true });
    await writeFile(join(cli.root, 'images'), 'no directory');
    const { code, stderr } = await cli.type(['run', '-d', image, 'true']);
    await rm(join(cli.root, 'images'));
    assert.equal(code, 125);
    assert.match(
      stderr,
      /^podvm: Cannot start the node in the background: .*\n( {2}\| .*\n)+ {2}fix: See .*node\.log/m,
    );
  });
});
