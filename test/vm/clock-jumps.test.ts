import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { logLines } from '../log-lines.ts';
import { repo } from './cli-node.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const image = { image: 'localhost/podvm/base:latest' };
const deadlineMs = 60_000;
/** Distance in which two dates count as the same, in `ms`. */
const nearMs = 30_000;

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 50, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

/** The daemon's date, and only that, is set by libfaketime. Its guests and helpers have the host's. */
describe('a host whose date is set', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  let directory: string;
  let node: CriNode;
  let shiftMs = 0;
  const set = async (hours: number) => {
    shiftMs = hours * 3_600_000;
    await writeFile(join(directory, 'shift'), `${hours < 0 ? '' : '+'}${hours * 3600}`);
  };
  const isNow = (ms: number) => Math.abs(ms - Date.now() - shiftMs) < nearMs;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-clock-');
    await set(0);
    const { stdout } = await run('dpkg', ['-L', 'libfaketime']);
    const library = stdout.split('\n').find((path) => path.endsWith('/libfaketime.so.1')) ?? assert.fail(stdout);
    const once = join(directory, 'once.mjs');
    await writeFile(once, 'delete process.env.LD_PRELOAD; delete process.env.NODE_OPTIONS;');
    const podvm = join(directory, 'podvm');
    const env = [
      `LD_PRELOAD=${library}`,
      `FAKETIME_TIMESTAMP_FILE=${join(directory, 'shift')}`,
      'FAKETIME_NO_CACHE=1',
      'FAKETIME_DONT_FAKE_MONOTONIC=1',
      `NODE_OPTIONS="--import ${once}"`,
    ];
    await writeFile(podvm, `#!/bin/sh\nexport ${env.join(' ')}\nexec ${join(repo, 'podvm')} "$@"\n`, { mode: 0o755 });
    node = await openCriNode({ podvm });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  it('pods continue, and events have dates, even if records are from the future', async () => {
    const logDirectory = join(node.cli.root, 'pod-logs');
    const metadata = { name: 'dated', namespace: 'default', uid: 'uid-of-dated', attempt: 0 };
    const sandboxConfig = { metadata, logDirectory };
    const { podSandboxId } = await node.runtime.runPodSandbox({ config: sandboxConfig });
    node.ids.push(podSandboxId);
    const start = async (name: string, script: string) => {
      const config = { metadata: { name }, image, command: ['sh', '-c', script], logPath: `${name}.log` };
      const { containerId } = await node.runtime.createContainer({ podSandboxId, sandboxConfig, config });
      await node.runtime.startContainer({ containerId });
      return containerId;
    };
    const ended = async (containerId: string) => {
      const status = await until('the container has ended', async () => {
        const { status: now } = await node.runtime.containerStatus({ containerId });
        return now?.state === ContainerState.CONTAINER_EXITED ? now : undefined;
      });
      const msOf = (ns: bigint) => Number(ns / 1_000_000n);
      const [createdMs, startedMs, finishedMs] = [status.createdAt, status.startedAt, status.finishedAt].map(msOf);
      assert.ok(createdMs !== undefined && startedMs !== undefined && finishedMs !== undefined);
      assert.ok(createdMs <= startedMs && startedMs <= finishedMs, `${createdMs} ${startedMs} ${finishedMs}`);
      assert.equal(status.exitCode, 3);
      return { startedMs, finishedMs };
    };
    const count = await start('count', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done');
    const log = join(logDirectory, 'count.log');
    const waits = (file: string) => `until [ -e /tmp/${file} ]; do sleep 0.1; done; exit 3`;
    const early = await start('early', waits('early'));
    const early2 = await start('early2', waits('early2'));
    const early3 = await start('early3', waits('early3'));
    const exec = async (containerId: string, script: string) => {
      const cmd = ['sh', '-c', script];
      const { stdout, exitCode } = await node.runtime.execSync({ containerId, cmd, timeout: 60n });
      assert.equal(exitCode, 0);
      return Buffer.from(stdout).toString();
    };
    const goesOn = async () => {
      await until('output with the new date', async () => {
        const last = (await readFile(log, 'utf8')).trimEnd().split('\n').at(-1) ?? '';
        return isNow(Date.parse(last.slice(0, last.indexOf(' ')))) || undefined;
      });
      const { status } = await node.runtime.podSandboxStatus({ podSandboxId });
      assert.equal(status?.state, PodSandboxState.SANDBOX_READY, node.log());
      assert.equal(await exec(count, 'echo here'), 'here\n');
      const { startedMs, finishedMs } = await ended(await start(`at-${shiftMs}`, 'sleep 2; exit 3'));
      assert.ok(isNow(finishedMs) && finishedMs - startedMs >= 1_900, `${startedMs} ${finishedMs}`);
    };

    for (const [hours, waiting, file] of [
      [1, early, 'early'],
      [-1, early2, 'early2'],
    ] as const) {
      await set(hours);
      await goesOn();
      await exec(waiting, `touch /tmp/${file}`);
      const { startedMs, finishedMs } = await ended(waiting);
      assert.ok(isNow(finishedMs) || finishedMs === startedMs, `${finishedMs}`); // never before its start
    }

    await node.end('SIGKILL');
    await set(-2);
    await node.start();
    await goesOn();
    await exec(early3, 'touch /tmp/early3');
    await ended(early3);
    const numbers = (await logLines(log)).map(Number);
    assert.deepEqual(
      numbers.filter((number, at) => number !== at + 1),
      [],
    );
    assert.deepEqual(
      node
        .log()
        .split('\n')
        .filter((line) => / (error|warn) /.test(line)),
      [],
    );
  });
});
