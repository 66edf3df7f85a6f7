import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { messageOf } from '#base/errors.ts';
import { is } from '../testing/grpc-client.ts';
import type { AttachStreamRequest, ExecStreamRequest } from '../streaming/streaming.ts';
import { containerConfig, openFakeNode, podConfig, type FakeNode } from '../testing/fake-node.ts';
import { maxKeptBytes } from './exec-sync.ts';

interface GuestExec {
  readonly execId: string;
  print(stream: 'stdout' | 'stderr', bytes: Uint8Array | string): void;
  /** Ends the output and the process. */
  exit(exitCode: number): void;
}

/** Defines the guest's behaviour for each command in the container. */
function onExec({ parts }: FakeNode, containerId: () => string, run: (exec: GuestExec) => void): void {
  parts.guest.answers.set('startExec', ({ execId, stdio }) => {
    const { stdout, stderr } = stdio as { stdout: number; stderr: number };
    const streams = { stdout: parts.guest.stream(stdout), stderr: parts.guest.stream(stderr) };
    const name = execId as string;
    setImmediate(() =>
      run({
        execId: name,
        print: (stream, bytes) => void streams[stream].write(bytes),
        exit(exitCode) {
          for (const stream of Object.values(streams)) stream.end();
          const exited = { execId: name, containerId: containerId(), exitCode, oomKilled: false, finishedAtMs: 1 };
          parts.guest.tell({ kind: 'exited', ...exited });
        },
      }),
    );
    return { pid: 5 };
  });
}

test('execSync() returns both outputs unchanged, and the exit code', async () => {
  await using node = await openFakeNode();
  const { containerId } = await node.running();
  const bytes = Uint8Array.from({ length: 256 }, (_, value) => value);
  onExec(
    node,
    () => containerId,
    (exec) => {
      exec.print('stdout', bytes);
      exec.print('stderr', 'oh no');
      exec.exit(3);
    },
  );
  const answer = await node.runtime.execSync({ containerId, cmd: ['x'] });
  assert.equal(answer.exitCode, 3);
  assert.deepEqual([...answer.stdout], [...bytes]);
  assert.equal(Buffer.from(answer.stderr).toString(), 'oh no');
});

test('execSync() keeps the first bytes of a large output, reads it to its end, and reports the truncation', async () => {
  await using node = await openFakeNode();
  const { containerId } = await node.running();
  const chunk = Buffer.alloc(1024 * 1024, 'x');
  onExec(
    node,
    () => containerId,
    (exec) => {
      exec.print('stderr', Buffer.from('oh no'));
      for (let count = 0; count < 9; count += 1) exec.print('stdout', chunk);
      exec.exit(0);
    },
  );
  const { stdout, stderr } = await node.runtime.execSync({ containerId, cmd: ['yes'] });
  assert.equal(stdout.length, maxKeptBytes);
  const dropped = 9 * chunk.length - maxKeptBytes;
  const told = `podvm: standard output was truncated to ${maxKeptBytes} bytes, and ${dropped} bytes were dropped\n`;
  assert.equal(Buffer.from(stderr).toString(), `oh no\n${told}`);
});

test('execSync() kills a command that takes too long, or whose caller disconnects', async () => {
  await using node = await openFakeNode();
  const { containerId } = await node.running();
  const execs: GuestExec[] = [];
  const entered = Promise.withResolvers<void>();
  onExec(
    node,
    () => containerId,
    (exec) => {
      execs.push(exec);
      if (execs.length === 2) entered.resolve();
    },
  );
  const killed: unknown[] = [];
  const both = Promise.withResolvers<void>();
  node.parts.guest.answers.set('signalExec', ({ execId, signal }) => {
    killed.push(signal);
    execs.find((exec) => exec.execId === execId)?.exit(137);
    if (killed.length === 2) both.resolve();
  });
  const slow = node.runtime.execSync({ containerId, cmd: ['sleep'], timeout: 1n });
  await assert.rejects(slow, is(status.DEADLINE_EXCEEDED, /longer than 1 s/));
  const stop = new AbortController();
  const left = node.runtime.execSync({ containerId, cmd: ['sleep'] }, { signal: stop.signal });
  const refused = assert.rejects(left, is(status.CANCELLED));
  await entered.promise;
  stop.abort();
  await refused;
  await both.promise;
  assert.deepEqual(killed, [9, 9]);
});

test('commands are refused without a running container, and if they are empty', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId, containerId } = await node.running();
  const other = { ...containerConfig, metadata: { name: 'other' } };
  const { containerId: created } = await runtime.createContainer({ podSandboxId, config: other });
  for (const verb of [runtime.execSync, runtime.exec] as const) {
    await assert.rejects(verb({ containerId: 'nothing', cmd: ['x'] }), is(status.NOT_FOUND));
    await assert.rejects(verb({ containerId: created, cmd: ['x'] }), is(status.FAILED_PRECONDITION, /it is created/));
    await assert.rejects(verb({ containerId }), is(status.INVALID_ARGUMENT, /no command was given/));
  }
  await assert.rejects(runtime.attach({ containerId: created }), is(status.FAILED_PRECONDITION, /it is created/));
  await runtime.stopPodSandbox({ podSandboxId });
  await assert.rejects(runtime.portForward({ podSandboxId }), is(status.FAILED_PRECONDITION, /it is stopped/));
});

test('exec(), attach() and portForward() answer with a URL for the request', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId, containerId } = await node.running(podConfig, {
    ...containerConfig,
    stdin: true,
    stdinOnce: true,
  });
  const { url } = await runtime.exec({ containerId, cmd: ['sh'], tty: true, stdin: true, stdout: true });
  assert.equal(url, 'http://127.0.0.1/1');
  assert.equal((await runtime.attach({ containerId, stdin: true, stdout: true })).url, 'http://127.0.0.1/2');
  assert.equal((await runtime.portForward({ podSandboxId })).url, 'http://127.0.0.1/3');
  const [exec, attach] = node.streams as [ExecStreamRequest, AttachStreamRequest];
  const { command, tty, stdin, stdout, stderr } = exec;
  assert.deepEqual(
    { command, tty, stdin, stdout, stderr },
    { command: ['sh'], tty: true, stdin: true, stdout: true, stderr: false },
  );

  const signal = new AbortController().signal;
  const attachment = await attach.target.attach(signal);
  assert.equal(attachment.stdinOnce, true);
  const create = node.parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  const streams = create?.params['stdio'] as { stdin: number; stdout: number };
  const inGuest = node.parts.guest.stream(streams.stdin);
  attachment.stdin?.write('typed');
  for await (const bytes of inGuest) {
    assert.equal(String(bytes), 'typed');
    break;
  }
  const heard = Promise.withResolvers<string>();
  const following = attachment.follow(async ({ bytes }) => heard.resolve(Buffer.from(bytes).toString()));
  node.parts.guest.stream(streams.stdout).write('said');
  assert.equal(await heard.promise, 'said');
  following.stop();
  attachment.detach();

  node.exit(containerId, 0);
  for (;;) {
    const refusal = await attach.target.attach(signal).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (refusal !== undefined) {
      assert.match(messageOf(refusal), /it is exited/);
      break;
    }
    await new Promise(setImmediate); // messages of the guest arrive through the link
  }
});
