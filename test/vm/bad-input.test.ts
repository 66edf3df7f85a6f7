import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/run.ts';
import { whyNoVm } from './house.ts';
import { type Desk, type Ended, openDesk } from './typed.ts';

const isRoot = process.getuid?.() === 0;
const image = 'localhost/podvm/base:latest';
/** One line that says what and why, then one that says what to do; no stack, nothing else. */
const whatAndFix = /^podvm: Cannot [^\n]+\n {2}fix: [A-Z][^\n]+\.\n$/;

/** A Pod whose one container says `ran`; `more` are further lines of the container or the spec. */
const pod = (name: string, more = '', of = image) => `apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  restartPolicy: Never
  containers:
    - name: it
      image: ${of}
      imagePullPolicy: Never
      command: [sh, -c, echo ran]
${more}`;

/** It failed in words for a person, of which none come twice. */
function assertRefused({ code, stdout, stderr }: Ended, says: RegExp): void {
  assert.equal(code, 125, stderr);
  assert.equal(stdout, '');
  assert.match(stderr, says);
  assert.doesNotMatch(stderr, /^\s+at |\berror .*err=|node:internal/m, 'no stack, no log line');
  const lines = stderr.trimEnd().split('\n');
  assert.equal(new Set(lines.map((line) => line.replace(/^podvm: (\S+: )*/, ''))).size, lines.length, stderr);
}

async function assertNoPods(desk: Desk): Promise<void> {
  const { code, stdout } = await desk.type(['ps']);
  assert.equal(code, 0);
  assert.equal(stdout.trim().split('\n').length, 1, stdout);
}

describe('podvm, given what it cannot use', { skip: isRoot ? false : 'needs root' }, () => {
  let desk: Desk;
  before(async () => {
    desk = await openDesk({ isSetUp: false });
  });
  after(async () => await desk[Symbol.asyncDispose]());

  it('a flag, a command or a word too few: 2, and where help is', async () => {
    for (const line of [['run'], ['run', '--nope', 'x'], ['nope'], ['exec', 'pod']]) {
      const { code, stdout, stderr } = await desk.type(line);
      assert.equal(code, 2, line.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, /^podvm: [^\n]+\n {2}fix: [^\n]+--help[^\n]*\n$/);
    }
  });

  it('no pod runs: what and what to do, and ps is empty', async () => {
    const ended = await desk.type(['logs', 'hello']);
    assertRefused(ended, /^podvm: Cannot reach podvm: no pod is running on this machine\n {2}fix: .*podvm run/);
    await assertNoPods(desk);
  });

  it('a file that cannot be read is told before anything is set up for it', async () => {
    assertRefused(await desk.type(['run', '/nope.yaml']), /^podvm: Cannot read \/nope\.yaml: there is no such file\n/);
    assertRefused(await desk.type(['run', '/tmp']), /^podvm: Cannot read \/tmp: it is a directory\n {2}fix: /);
    assert.deepEqual(await readdir(desk.root), []);
  });

  it('whoever is not root learns that before anything is made', async () => {
    const args = ['--reuid=65534', '--regid=65534', '--clear-groups', join(import.meta.dirname, '../../podvm')];
    const env = { ...process.env, PODVM_ROOT: desk.root } as Record<string, string>;
    const options = { env, okCodes: [125] };
    const { stderr } = await run('setpriv', [...args, 'run', join(import.meta.dirname, '../../README.md')], options);
    assert.match(stderr, whatAndFix);
    assert.match(stderr, /must be root[^]*fix: Run it as root/);
  });

  it('a socket whose process was killed is as good as none', async () => {
    const path = join(desk.root, 'podvm.sock');
    const listen = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
    const server = spawn(process.execPath, ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(server.stdout, 'data');
    server.kill('SIGKILL'); // it cannot remove its socket
    await once(server, 'close');
    assert.deepEqual(await readdir(desk.root), ['podvm.sock']);
    assertRefused(await desk.type(['logs', 'hello']), /^podvm: Cannot reach podvm/);
    await assertNoPods(desk);
    await rm(path);
  });

  it('a state directory with too long a path is refused before anything is made', async () => {
    const long = join(desk.root, 'x'.repeat(120));
    const { code, stderr } = await desk.type(['--root', long, 'ps']);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot use the socket .*too long for a socket\n {2}fix: /);
  });

  it('nothing was left behind', async () => {
    assert.deepEqual(await readdir(desk.root), []);
  });
});

describe('podvm run, given a manifest it cannot use', { skip: await whyNoVm() }, () => {
  let desk: Desk;
  before(async () => {
    desk = await openDesk({ isSetUp: true });
  });
  after(async () => await desk[Symbol.asyncDispose]());
  const running = async (text: string) => await desk.type(['run', '-'], text);

  it('nothing in it', async () => {
    assertRefused(await running(''), /^podvm: Cannot run <stdin>: there is no Pod in it\n {2}fix: /);
  });

  it('no YAML: file, line and column', async () => {
    assertRefused(await running('kind: Pod\nspec:\n\tcontainers: []\n'), /\n<stdin>:3:1: Tabs are not allowed/);
  });

  it('a wrong type, an unsupported volume, a name given twice: file, line and field', async () => {
    const wrong = await running(pod('bad', '      env: {A: b}\n'));
    assertRefused(wrong, /\n<stdin>:11: spec\.containers\[0\]\.env: must be a list, got a mapping\n$/);
    const hostPath = await running(pod('bad', '  volumes: [{name: v, hostPath: {path: /etc}}]\n'));
    assertRefused(hostPath, /\n<stdin>:11: spec\.volumes\[0\]\.hostPath: is not supported yet; use emptyDir/);
    const twice = await running(`${pod('bad')}---\n${pod('bad')}`);
    assertRefused(twice, /\n<stdin>:14: metadata\.name: Pod default\/bad is given twice\n$/);
  });

  it('more memory than the node has: how much that is, and what to do', async () => {
    const huge = await running(pod('bad', '      resources: {limits: {memory: 900Gi}}\n'));
    assertRefused(
      huge,
      /this node gives one machine at most \d+ MiB\n {2}fix: Lower resources\.limits\.memory[^\n]*\n/,
    );
  });

  it('an image that is not there: once, and what to do', async () => {
    const missing = await running(pod('bad', '', 'localhost/nope:1'));
    assertRefused(
      missing,
      /^podvm: bad\/it: Failed: Cannot use image localhost\/nope:1: [^\n]+\n {2}fix: [^\n]+podvm image/,
    );
    assert.match(missing.stderr, /\npodvm: pod bad ended with 125\n$/);
  });

  it('no image at all: a broken digest, a name of control characters', async () => {
    for (const name of ['localhost/nope@sha256:abc', '"\\e[31m;rm -rf / ../..%00"']) {
      const ended = await running(pod('bad', '', name));
      assertRefused(ended, /image/);
      assert.equal(ended.stderr.includes('\u001b'), false, 'it must not reach the terminal');
    }
  });

  it('a misspelt field is told, with what was meant, and the pod runs', async () => {
    const { code, stdout, stderr } = await running(pod('typo', '      workingdir: /tmp\n'));
    assert.match(
      stderr,
      /^podvm: warning: <stdin>:11: spec\.containers\[0\]\.workingdir: .*did you mean workingDir\?\n$/,
    );
    assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
  });

  it('no pod, sandbox or socket was left behind', async () => {
    await assertNoPods(desk);
    assert.deepEqual(await readdir(join(desk.root, 'sandboxes')), []);
    assert.equal((await readdir(desk.root)).includes('podvm.sock'), false);
  });
});
