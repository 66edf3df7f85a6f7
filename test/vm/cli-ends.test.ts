import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { tracesOf } from '../leaks.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode } from './cli-node.ts';

const skip = await whyNoVm();
const repo = join(import.meta.dirname, '../..');
const image = 'localhost/podvm/base:latest';

/** A pod that prints when it is up and when it gets SIGTERM, and then takes some time to end. */
const pod = (name: string) => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  containers:
    - name: it
      image: ${image}
      command: [sh, -c, "trap 'echo got TERM; exit 3' TERM; echo up; while :; do echo .; sleep 0.1; done"]
`;

describe('podvm, ended in other ways than by Ctrl-C', { skip, timeout: 600_000 }, () => {
  let cli: CliNode;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: cli.root, ids: [] }), []);
  });

  const run = async (name: string) => {
    const typed = cli.start(['run', '--network', 'none', '-'], pod(name));
    await typed.shows(/up/);
    return typed;
  };
  const processes = async () =>
    (await tracesOf({ directory: cli.root, ids: [] })).filter((line) => line.startsWith('process'));
  const untilAllEnded = async () => {
    for (const deadline = AbortSignal.timeout(60_000); (await processes()).length > 0; await delay(50))
      assert.ok(!deadline.aborted, (await processes()).join('\n'));
  };

  it('SIGHUP ends the pods like SIGTERM, even when sent twice', async () => {
    const typed = await run('hung');
    typed.child.kill('SIGHUP');
    await typed.shows(/stopping/);
    typed.child.kill('SIGHUP');
    const { code, stdout } = await typed.ended;
    assert.match(stdout, /got TERM\n/);
    assert.equal(code, 3);
    await untilAllEnded();
  });

  it('output without a reader ends the pods, and leaves nothing', async () => {
    const typed = await run('piped');
    typed.child.stdout.destroy();
    assert.equal((await typed.ended).code, 3);
    await untilAllEnded();
  });

  it('a terminal that is closed leaves no machine, under a shell or without one', async () => {
    const file = join(cli.root, 'pod.yaml');
    await writeFile(file, pod('closed'));
    for (const shell of ['', 'bash --norc -ic ']) {
      const line = `./podvm run --network none ${file}`;
      // Its end closes the terminal, as that of a window or of an ssh session does.
      const terminal = spawn(
        'script',
        ['-qec', shell === '' ? `exec ${line}` : `${shell}"${line}; true"`, '/dev/null'],
        {
          cwd: repo,
          env: { ...process.env, PODVM_ROOT: cli.root, PODVM_BACKGROUND: 'off', SHELL: '/bin/sh' },
          stdio: ['pipe', 'pipe', 'inherit'],
        },
      );
      const exited = once(terminal, 'exit');
      let shown = '';
      // Without an end of the reader, which would end the terminal before it is killed.
      for await (const chunk of terminal.stdout.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        shown += chunk.toString();
        if (/up\r\n/.test(shown)) break;
      }
      terminal.stdout.resume();
      assert.match(shown, /up\r\n/);
      assert.ok((await processes()).length > 1);
      terminal.kill('SIGKILL');
      await exited;
      await untilAllEnded();
    }
  });

  it('a pod of another terminal continues when the serving terminal is closed, until its own is', async () => {
    const first = await run('first');
    const second = await run('second');
    first.child.kill('SIGHUP');
    first.child.stdout.destroy();
    await first.shows(/waiting for pods of other terminals/);
    assert.equal((await cli.type(['exec', 'second', 'sh', '-c', 'exit 4'])).code, 4);
    second.child.kill('SIGHUP');
    assert.equal((await second.ended).code, 3);
    assert.equal((await first.ended).code, 3);
    await untilAllEnded();
  });

  it('a killed podvm leaves its machine: ps and doctor report it, and stop --orphaned ends it', async () => {
    const typed = await run('left');
    typed.child.kill('SIGKILL');
    await typed.ended;
    const listed = await cli.type(['ps']);
    assert.match(listed.stdout, /\ndefault +left +- +Orphaned /);
    assert.match(listed.stderr, /a machine is running, but no podvm serves it\n {2}fix: .*stop --orphaned/);
    const { stdout } = await cli.type(['doctor']);
    assert.match(
      stdout,
      /^warn +machines +the machine of default\/left \(process \d+\) is running, but no podvm serves it\n/m,
    );
    assert.equal((await cli.type(['image', 'ls'])).code, 0);
    assert.equal((await cli.type(['stop', '--orphaned'])).stdout, 'default/left stopped\n');
    await untilAllEnded();
    assert.equal((await cli.type(['ps'])).stderr, '');
    assert.equal((await cli.type(['stop', '--orphaned'])).stdout, 'no machine is orphaned\n');
  });

  it('SIGHUP ends the daemon like SIGTERM, but not one started by nohup', async () => {
    const typed = cli.start(['daemon']);
    await typed.shows(/ info serving /);
    typed.child.kill('SIGHUP');
    const { code, stderr } = await typed.ended;
    assert.deepEqual([code, / info ending\n/.test(stderr)], [0, true]);

    const env = { ...process.env, PODVM_ROOT: cli.root, PODVM_BACKGROUND: 'off' };
    const kept = spawn('nohup', [join(repo, 'podvm'), 'daemon'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const exited = once(kept, 'exit');
    kept.stderr.setEncoding('utf8');
    const said: string[] = [];
    kept.stderr.on('data', (text: string) => said.push(text));
    const says = async (pattern: RegExp) => {
      while (!pattern.test(said.join(''))) await once(kept.stderr, 'data', { signal: AbortSignal.timeout(60_000) });
    };
    await says(/ info serving /);
    kept.kill('SIGHUP');
    assert.equal((await cli.type(['ps'])).code, 0);
    kept.kill('SIGTERM');
    await says(/ info ending/);
    assert.deepEqual(await exited, [0, null]);
    await untilAllEnded();
  });
});
