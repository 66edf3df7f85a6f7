import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import type { Container, ContainerSpec, Sandbox, Sandboxes, SandboxSpec } from '../sandbox.ts';

/** Sandboxes, with control over what their guests do. Disposing ends what is left of them. */
export interface SandboxesHarness extends AsyncDisposable {
  readonly sandboxes: Sandboxes;
  readonly sandboxSpec: SandboxSpec;
  /** Spec of a container that ignores SIGTERM, and runs until it is killed or `exit` is called; for any name. */
  readonly containerSpec: ContainerSpec;
  /** Makes the container's first process exit. */
  exit(container: Container, exitCode: number): Promise<void>;
  /** Kills the machine from outside. */
  crash(sandbox: Sandbox): Promise<void>;
}

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

/** The suite that every `Sandboxes` passes, by theme. Runs one sandbox at a time, each with a new name. */
export function describeSandboxes(
  name: string,
  open: () => Promise<SandboxesHarness>,
  skip: string | false = false,
): void {
  describe(`the ${name} sandboxes`, { timeout: 600_000, skip }, () => {
    let harness: SandboxesHarness;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    describe('run()', () => describeRuns(() => harness));
    describe('a container', () => describeContainer(() => harness));
    describe('the end of a sandbox', () => describeEnd(() => harness));
  });
}

type Harness = () => SandboxesHarness;

let named = 0;

async function start({ sandboxes, sandboxSpec }: SandboxesHarness): Promise<Sandbox & AsyncDisposable> {
  const sandbox = await sandboxes.run({ ...sandboxSpec, name: `suite-${(named += 1)}` }, soon());
  return Object.assign(sandbox, { [Symbol.asyncDispose]: () => sandbox.remove() });
}

const create = (sandbox: Sandbox, harness: SandboxesHarness, name: string, more: Partial<ContainerSpec> = {}) =>
  sandbox.createContainer({ ...harness.containerSpec, name, ...more }, soon());

async function run(sandbox: Sandbox, harness: SandboxesHarness, name: string): Promise<Container> {
  const container = await create(sandbox, harness, name);
  await container.start(soon());
  return container;
}

const ls = { command: ['sleep', '1000'], tty: false, stdin: false } as const;

function describeRuns(harness: Harness): void {
  test('gives a sandbox that is ready, found by its name and in the list, until it is removed', async () => {
    const { sandboxes } = harness();
    const sandbox = await start(harness());
    const { namespace, name } = sandbox.spec;
    assert.equal(sandbox.status.state, 'ready');
    assert.equal(sandbox.status.id, sandbox.id);
    assert.deepEqual(sandbox.status.containers, []);
    assert.equal(sandboxes.get(namespace, name)?.id, sandbox.id);
    assert.equal(sandboxes.get(namespace, 'other'), undefined);
    assert.equal(sandboxes.get('other', name), undefined);
    assert.deepEqual(
      sandboxes.list().map(({ id }) => id),
      [sandbox.id],
    );
    await sandbox.remove();
    assert.deepEqual(sandboxes.list(), []);
    assert.equal(sandboxes.get(namespace, name), undefined);
    await sandbox.remove();
  });

  test('refuses a name in use until it is free', async () => {
    const { sandboxes } = harness();
    const sandbox = await start(harness());
    await assert.rejects(sandboxes.run(sandbox.spec, soon()), kind('alreadyExists'));
    await sandbox.stop(0);
    await assert.rejects(sandboxes.run(sandbox.spec, soon()), kind('alreadyExists'));
    await sandbox.remove();
    await (await sandboxes.run(sandbox.spec, soon())).remove();
  });

  test('leaves nothing when it is cancelled', async () => {
    const { sandboxes, sandboxSpec } = harness();
    await assert.rejects(sandboxes.run(sandboxSpec, AbortSignal.abort()), kind('cancelled'));
    assert.deepEqual(sandboxes.list(), []);
  });

  test('refuses an invalid port, a connection without a listener, and files for what is not a push volume', async () => {
    await using sandbox = await start(harness());
    await assert.rejects(sandbox.dial(0, undefined, soon()), kind('invalid'));
    await assert.rejects(sandbox.dial(9, undefined, soon()), kind('unavailable'));
    await assert.rejects(sandbox.updateVolume('none', [], soon()), kind('notFound'));
  });
}

function describeContainer(harness: Harness): void {
  test('is kept from use while its sandbox is paused, continues, and ends with it', async () => {
    await using sandbox = await start(harness());
    const container = await run(sandbox, harness(), 'main');
    for (const isPaused of [true, true]) await sandbox.setPaused(isPaused);
    assert.equal(sandbox.status.isPaused, true);
    await assert.rejects(create(sandbox, harness(), 'second'), kind('unavailable'));
    await assert.rejects(sandbox.stats(soon()), kind('unavailable'));
    await sandbox.setPaused(false);
    assert.equal(sandbox.status.isPaused, undefined);
    await sandbox.stats(soon());
    await sandbox.setPaused(true);
    assert.equal((await sandbox.stop(0)).state, 'stopped');
    assert.equal(sandbox.status.isPaused, undefined);
    assert.equal(container.status.state, 'exited');
    await assert.rejects(sandbox.setPaused(true), kind('failedPrecondition'));
  });

  test('is created, runs and exits with its code, each step in its status', async () => {
    await using sandbox = await start(harness());
    for (const exitCode of [0, 7]) {
      const container = await create(sandbox, harness(), `exits-${exitCode}`);
      const { state, startedAt, exit } = container.status;
      assert.deepEqual([state, startedAt, exit], ['created', undefined, undefined]);
      await container.start(soon());
      assert.equal(container.status.state, 'running');
      assert.ok(container.status.startedAt !== undefined);
      await harness().exit(container, exitCode);
      const exited = await container.exited;
      assert.deepEqual([exited.exitCode, exited.reason], [exitCode, exitCode === 0 ? 'Completed' : 'Error']);
      assert.equal(container.status.state, 'exited');
      assert.deepEqual(container.status.exit, exited);
      await container.start(soon()); // has the first call's outcome; does not run it again
      assert.deepEqual(container.status.exit, exited);
    }
  });

  test('has a unique name and attempt until it is removed', async () => {
    await using sandbox = await start(harness());
    const first = await create(sandbox, harness(), 'twice');
    await assert.rejects(create(sandbox, harness(), 'twice'), kind('alreadyExists'));
    const next = await create(sandbox, harness(), 'twice', { attempt: 1 });
    assert.equal(sandbox.container('twice')?.status.attempt, next.status.attempt);
    assert.equal(sandbox.container('other'), undefined);
    await assert.rejects(first.remove(soon()), kind('failedPrecondition'));
    await first.stop(0, soon());
    await first.remove(soon());
    await first.remove(soon());
    await create(sandbox, harness(), 'twice');
  });

  test('ends by SIGKILL, also one that was never started, and a second time is no error', async () => {
    await using sandbox = await start(harness());
    const running = await run(sandbox, harness(), 'runs');
    await running.kill(9, soon());
    const exit = await running.exited;
    assert.deepEqual([exit.exitCode, exit.reason], [137, 'Error']);
    await running.kill(9, soon());
    assert.deepEqual(await running.stop(1000, soon()), exit);
    const graceless = await run(sandbox, harness(), 'graceless');
    assert.equal((await graceless.stop(0, soon())).exitCode, 137);
    const created = await create(sandbox, harness(), 'created');
    const { exitCode, reason } = await created.stop(0, soon());
    assert.deepEqual([exitCode, reason], [137, 'Error']);
    assert.equal(created.status.state, 'exited');
  });

  test('has commands while it runs, which end with it', async () => {
    await using sandbox = await start(harness());
    const container = await create(sandbox, harness(), 'execs');
    await assert.rejects(container.exec(ls, soon()), kind('failedPrecondition'));
    await container.start(soon());
    const exec = await container.exec(ls, soon());
    assert.equal(exec.stdin, undefined);
    const other = await container.exec(ls, soon());
    await other.kill(9);
    assert.equal((await other.exited).exitCode, 137);
    assert.equal(container.status.state, 'running');
    await container.kill(9, soon());
    assert.equal((await exec.exited).exitCode, 137);
    await container.exited;
    await assert.rejects(container.exec(ls, soon()), kind('failedPrecondition'));
  });

  test('ends its output with it', async () => {
    await using sandbox = await start(harness());
    const container = await run(sandbox, harness(), 'output');
    const follower = container.follow(async () => {});
    container.follow(async () => {}).stop();
    await harness().exit(container, 0);
    await Promise.all([container.exited, follower.ended]);
  });
}

function describeEnd(harness: Harness): void {
  test('stop() ends what runs and what does not yet, once, told to all', async () => {
    await using sandbox = await start(harness());
    const running = await run(sandbox, harness(), 'runs');
    const created = await create(sandbox, harness(), 'created');
    const [first, second, ended] = await Promise.all([sandbox.stop(0), sandbox.stop(1000), sandbox.ended]);
    assert.deepEqual([first.state, first.failure], ['stopped', undefined]);
    assert.deepEqual([second, ended], [first, first]);
    for (const { exited } of [running, created]) {
      const { exitCode, reason } = await exited;
      assert.deepEqual([exitCode, reason], [137, 'Error']);
    }
    assert.deepEqual(
      first.containers.map(({ state }) => state),
      ['exited', 'exited'],
    );
    assert.equal((await sandbox.stop(0)).state, 'stopped');
  });

  test('offers nothing once it is over', async () => {
    await using sandbox = await start(harness());
    const created = await create(sandbox, harness(), 'created');
    await sandbox.stop(0);
    await assert.rejects(create(sandbox, harness(), 'late'), kind('failedPrecondition'));
    await assert.rejects(created.start(soon()), kind('failedPrecondition'));
    await assert.rejects(sandbox.dial(80, undefined, soon()), kind('failedPrecondition'));
    await assert.rejects(sandbox.stats(soon()), kind('failedPrecondition'));
    await assert.rejects(sandbox.resize({}, soon()), kind('failedPrecondition'));
    await assert.rejects(sandbox.updateVolume('none', [], soon()), kind('failedPrecondition'));
  });

  test('a machine that dies fails it, with all of its containers, and says so', async () => {
    await using sandbox = await start(harness());
    const running = await run(sandbox, harness(), 'runs');
    const exec = await running.exec(ls, soon());
    const follower = running.follow(async () => {});
    const exited = await run(sandbox, harness(), 'exited');
    await harness().exit(exited, 3);
    await exited.exited;
    await harness().crash(sandbox);
    const { state, failure } = await sandbox.ended;
    assert.equal(state, 'failed');
    assert.notEqual(failure ?? '', '');
    const { exitCode, reason, why } = await running.exited;
    assert.deepEqual([exitCode, reason], [137, 'SandboxFailed']);
    assert.notEqual(why ?? '', '');
    assert.equal((await exited.exited).exitCode, 3);
    assert.equal((await exec.exited).exitCode, 137);
    await follower.ended;
    assert.equal((await sandbox.stop(0)).state, 'failed');
  });
}
