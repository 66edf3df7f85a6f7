import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { identify, isStopped, killProcess } from '#host/process/process-identity.ts';
import { poll } from '#host/wait.ts';
import { type CliNode, openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const image = 'localhost/podvm/base';
const soon = () => AbortSignal.timeout(120_000);

describe('podvm pause and debug', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  let cli: CliNode;
  before(async () => {
    cli = await openCliNode({ isSetUp: true, startsNode: true });
    const script = 'sleep 9876 & cd /scratch; while :; do date +%s >new; mv new now; sleep 0.1; done'; // never empty
    const { code, stderr } = await cli.type([
      'run',
      '-d',
      '--name',
      'web',
      '-u',
      '1000',
      '-v',
      '/scratch',
      image,
      'sh',
      '-c',
      script,
    ]);
    assert.equal(code, 0, stderr);
    const isThere = async () =>
      (await cli.type(['exec', 'web', '--', 'cat', '/scratch/now'])).code === 0 ? true : undefined;
    assert.ok(await poll(isThere, { everyMs: 200, signal: soon() }));
  });
  after(async () => {
    await cli.type(['uninstall']);
    await cli[Symbol.asyncDispose]();
  });

  const details = async () => {
    const { stdout } = await cli.type(['inspect', 'web']);
    return JSON.parse(stdout) as { phase: string; sandbox: { vmmPid: number } };
  };
  const isFrozen = async () => {
    const identity = await identify((await details()).sandbox.vmmPid);
    assert.ok(identity);
    return isStopped(identity);
  };
  const now = async () => {
    const { code, stdout, stderr } = await cli.type(['exec', 'web', '--', 'cat', '/scratch/now']);
    assert.equal(code, 0, stderr);
    return Number(stdout);
  };

  it('freezes the machine, refuses commands meanwhile, and lets it continue with the right date', async () => {
    assert.equal((await cli.type(['pause', 'web'])).stdout, 'default/web paused\n');
    const stops = async () => ((await isFrozen()) ? true : undefined); // once its threads have taken the signal
    assert.ok(await poll(stops, { everyMs: 200, signal: soon() }));
    assert.match((await cli.type(['ps'])).stdout, /web +1\/1 +Paused /);
    const refused = await cli.type(['exec', 'web', '--', 'true']);
    assert.match(refused.stderr, /the pod is paused\n  fix: .*podvm unpause/);
    assert.equal((await cli.type(['unpause', 'web'])).stdout, 'default/web unpaused\n');
    assert.equal(await isFrozen(), false);
    const beganAt = Math.floor(Date.now() / 1000);
    const isRight = await poll(async () => ((await now()) >= beganAt - 1 ? true : undefined), {
      everyMs: 200,
      signal: soon(),
    });
    assert.ok(isRight, 'the guest has the date of the host');
  });

  it('is ended by the next node, if the node is killed meanwhile', async () => {
    assert.equal((await cli.type(['pause', 'web'])).code, 0);
    const { pid } = JSON.parse(await readFile(join(cli.root, 'node.ready'), 'utf8')) as { pid: number };
    const node = await identify(pid);
    assert.ok(node);
    await killProcess(node);
    assert.match((await cli.type(['ps'])).stdout, /web +1\/1 +Running /);
    assert.equal(await isFrozen(), false);
    assert.ok((await now()) > 0);
  });

  it('shows the processes of a container to a shell with tools, and leaves nothing in the pod', async () => {
    const shown = await cli.type(['debug', 'web', '--', 'ps', '-o', 'pid,user,args']);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /\n +1 1000 +sh -c sleep 9876/);
    assert.match(shown.stdout, /sleep 9876\n/);
    const files = await cli.type(
      ['debug', 'web', '--image', image, '-i', '--', 'sh'],
      'cat /proc/1/root/scratch/now; exit 3\n',
    );
    assert.equal(files.code, 3, files.stderr);
    assert.match(files.stdout, /^\d+\n$/);
    const missing = await cli.type(['debug', 'web', '--', 'no-such-program']);
    assert.equal(missing.code, 127, missing.stderr);
    const target = await cli.type(['debug', 'web', '--target', 'none', '--', 'ps']);
    assert.match(target.stderr, /its container none does not run\n/);
    const { stdout } = await cli.type(['exec', 'web', '--', 'ps', '-o', 'args']);
    assert.doesNotMatch(stdout, /debugger|exit 3/);
  });

  it('does not keep a pod from being stopped', async () => {
    assert.equal((await cli.type(['pause', 'web'])).code, 0);
    assert.equal((await cli.type(['stop', '--grace', '1', 'web'])).stdout, 'default/web stopped\n');
    const refused = await cli.type(['pause', 'web']);
    assert.match(refused.stderr, /Cannot pause web: the pod has ended\n/);
  });
});
