import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openDesk, type Desk } from './typed.ts';

describe('podvm, given what it cannot use', { skip: process.getuid?.() === 0 ? false : 'needs root' }, () => {
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
    const { code, stderr } = await desk.type(['logs', 'hello']);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot reach podvm: no pod is running on this machine\n {2}fix: .*podvm run/);
    const ps = await desk.type(['ps']);
    assert.equal(ps.code, 0);
    assert.equal(ps.stdout.trim().split('\n').length, 1);
  });

  it('a socket that nobody serves any more is as good as none', async () => {
    const path = join(desk.root, 'podvm.sock');
    const server = createServer().listen(path);
    await new Promise((resolve) => server.once('listening', resolve));
    await new Promise((resolve) => server.close(resolve));
    await writeFile(path, ''); // whatever lies there
    const { code, stderr } = await desk.type(['logs', 'hello']);
    await rm(path);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot reach podvm/);
  });

  it('a state directory with too long a path is refused before anything is made', async () => {
    const long = join(desk.root, 'x'.repeat(120));
    const { code, stderr } = await desk.type(['--root', long, 'ps']);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot use the state directory .*too long for a socket/);
  });

  it('nothing was left behind', async () => {
    assert.deepEqual(await readdir(desk.root), []);
  });
});
