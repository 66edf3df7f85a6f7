import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { identify, isRunning } from '#host/process/process-identity.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode } from './cli-node.ts';
import { type AnotherBuild, makeAnotherBuild } from './make-another-build.ts';
import { whyNoVm } from './node.ts';

const image = 'localhost/podvm/base';
const port = 18_099;
const deadlineMs = 60_000;

/** Prints numbered lines while it runs, and serves the content of its volume. */
const serving = 'httpd -p 80 -h /data; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done';
/** Ends with code 3 on request. */
const failing = 'echo began; until [ -e /tmp/end ]; do sleep 0.1; done; exit 3';
/** The same, and prints meanwhile that it runs. */
const talking = 'echo began; until [ -e /tmp/end ]; do sleep 0.2; echo on; done; exit 3';

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 100, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

describe('pods of podvm run outlive their node', { skip: await whyNoVm(), timeout: 480_000 }, () => {
  let cli: CliNode;
  let another: AnotherBuild;
  let bootId: string;

  before(async () => {
    [another, cli] = await Promise.all([makeAnotherBuild(), openCliNode({ isSetUp: true, startsNode: true })]);
  });
  after(async () => {
    const { stdout } = await cli.type(['uninstall']);
    const { root } = cli;
    await cli[Symbol.asyncDispose]();
    await another[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: root, ids: [] }), [], stdout);
  });

  const endNode = async (signal: 'SIGKILL' | 'SIGTERM') => {
    const { pid } = JSON.parse(await readFile(join(cli.root, 'node.ready'), 'utf8')) as { pid: number };
    const node = await identify(pid);
    assert.ok(node !== undefined);
    process.kill(pid, signal);
    await until('the node is gone', async () => ((await isRunning(node)) ? undefined : true));
  };
  const exec = async (pod: string, script: string) => await cli.type(['exec', pod, '--', 'sh', '-c', script]);
  const bootOf = async (pod: string) => (await exec(pod, 'cat /proc/sys/kernel/random/boot_id')).stdout;
  const lines = async () => (await cli.type(['logs', 'store'])).stdout.split('\n').slice(0, -1);
  const rowOf = async (pod: string) =>
    new RegExp(`\\ndefault +${pod} +(\\S+) +(\\S+) +(\\d+) `).exec(`\n${(await cli.type(['ps'])).stdout}`)?.slice(1);

  /** Waits until a pod runs, ready, and asserts how often it was restarted. */
  const runs = async (pod: string, restarts: number) => {
    const row = await until(`${pod} runs, with ${restarts} restarts`, async () => {
      const found = await rowOf(pod);
      return found?.[0] === '1/1' && Number(found[2]) >= restarts ? found : undefined;
    });
    assert.deepEqual(row, ['1/1', 'Running', String(restarts)]);
  };

  const isAsBefore = async () => {
    await runs('store', 0);
    assert.equal(await bootOf('store'), bootId);
    const seen = (await lines()).length;
    const now = await until('more lines', async () => {
      const found = await lines();
      return found.length > seen + 5 ? found : undefined;
    });
    assert.deepEqual(
      now.filter((line, at) => line !== `line ${at + 1}`),
      [],
    );
    assert.equal((await exec('store', 'echo from the pod >/data/file')).code, 0);
    assert.equal(await readFile(join(cli.root, 'data/file'), 'utf8'), 'from the pod\n');
    assert.equal((await run('curl', ['-fsS', `http://127.0.0.1:${port}/index.html`])).stdout, 'from the host\n');
  };
  const fails = async (restarts: number) => {
    await exec('flaky', 'touch /tmp/end');
    await runs('flaky', restarts);
    const printed = await until('flaky prints', async () => (await cli.type(['logs', 'flaky'])).stdout || undefined);
    assert.equal(printed, 'began\n');
  };

  it('begin with a node', async () => {
    await mkdir(join(cli.root, 'data'));
    await writeFile(join(cli.root, 'data/index.html'), 'from the host\n');
    const store = ['--name', 'store', '-p', `127.0.0.1:${port}:80`, '-v', `${join(cli.root, 'data')}:/data`];
    const flaky = ['--name', 'flaky', '--restart', 'always'];
    for (const [flags, script] of [
      [store, serving],
      [flaky, failing],
    ] as const) {
      const { code, stderr } = await cli.type(['run', '-d', ...flags, image, 'sh', '-c', script]);
      assert.equal(code, 0, stderr);
    }
    bootId = await bootOf('store');
    await isAsBefore();
    await fails(1);
  });

  for (const [at, how] of (['SIGKILL', 'SIGTERM'] as const).entries()) {
    it(`continue after ${how} of it: in the same machine, with logs, port, volume, probes and restarts`, async () => {
      const name = `front-${at}`;
      const typed = cli.start(['run', '--rm', '--name', name, image, 'sh', '-c', talking]);
      await typed.shows(/began\n/);
      const following = cli.start(['logs', '-f', 'store']);
      await following.shows(/line 1\n/);
      await endNode(how);
      const told = await typed.ended;
      assert.match(told.stderr, new RegExp(`Cannot follow ${name} any longer: .*\\n  fix: .*podvm attach ${name}`));
      assert.equal(told.code, 125);
      const read = await following.ended;
      assert.match(read.stderr, /Cannot read on: .*\n {2}fix: Run the command again/);
      await isAsBefore();
      if (at === 0) await fails(2); // the third restart has to wait longer than a test
      await runs(name, 0);
      const attached = cli.start(['attach', name]);
      await attached.shows(/on\n/);
      await exec(name, 'touch /tmp/end');
      assert.equal((await attached.ended).code, 3);
      assert.doesNotMatch((await cli.type(['ps', '-a'])).stdout, new RegExp(name), '--rm holds for the next node, too');
    });
  }

  it('continue in a node of another build, and back', async () => {
    await endNode('SIGTERM');
    const { stdout } = await cli.start(['ps'], '', another.program).ended;
    assert.match(stdout, /\ndefault +store +1\/1 +Running /);
    await isAsBefore();
    await endNode('SIGKILL');
    await isAsBefore();
  });

  it('are stopped, awaited and removed in the next node as in any', async () => {
    await endNode('SIGKILL');
    const waiting = cli.start(['wait', 'store']);
    await until('it waits', async () => await rowOf('store'));
    assert.equal((await cli.type(['stop', '--grace', '1', 'store'])).stdout, 'default/store stopped\n');
    assert.equal((await waiting.ended).stdout, '137\n');
    assert.match((await lines()).at(-1) ?? '', /^line \d+$/);
    assert.equal((await cli.type(['rm', 'store'])).code, 0);
  });

  it('are ended by stop --orphaned without a node, and are then listed as lost', async () => {
    await endNode('SIGKILL');
    assert.equal((await cli.type(['stop', '--orphaned'])).stdout, 'default/flaky stopped\n');
    assert.match((await cli.type(['ps', '-a'])).stdout, /\ndefault +flaky +\S+ +Lost \(137\) /);
    assert.equal((await cli.type(['rm', 'flaky'])).code, 0);
  });
});
