import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import type { AgentEvent, Params } from '#wire/messages.ts';
import type { Link, LinkStream } from '../link.ts';

/** A guest with a disk whose image contains `sleep`. Disposing ends it. */
export interface ContainersHarness extends AsyncDisposable {
  readonly link: Link;
  /** Serial of the attached disk. */
  readonly imageDisk: string;
}

type Exited = Extract<AgentEvent, { kind: 'exited' }>;

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

/** The suite that the containers of every guest pass, run in one guest. */
export function describeContainers(
  name: string,
  open: () => Promise<ContainersHarness>,
  skip: string | false = false,
): void {
  describe(`containers in the ${name} guest`, { timeout: 300_000, skip }, () => {
    let harness: ContainersHarness;
    const exits = createExits();
    before(async () => {
      harness = await open();
      harness.link.onEvent((event) => exits.take(event));
    });
    after(async () => await harness[Symbol.asyncDispose]());
    describeThem(() => harness, exits);
  });
}

/** The exits that a guest has reported, to be waited for. */
function createExits() {
  const told: Exited[] = [];
  let wake = Promise.withResolvers<void>();
  return {
    told,
    take(event: AgentEvent): void {
      if (event.kind !== 'exited') return;
      told.push(event);
      wake.resolve();
      wake = Promise.withResolvers();
    },
    async of(containerId: string, execId?: string): Promise<Exited> {
      for (const deadline = soon(); ; deadline.throwIfAborted()) {
        const found = told.find((exit) => exit.containerId === containerId && exit.execId === execId);
        if (found !== undefined) return found;
        await wake.promise;
      }
    },
  };
}

function describeThem(harness: () => ContainersHarness, exits: ReturnType<typeof createExits>): void {
  const call: Link['call'] = (...request) => harness().link.call(...request);
  const create = async (id: string, more: Partial<Params<'createContainer'>> = {}) => {
    const streams = [outputOf(harness().link), outputOf(harness().link)] as const;
    const stdio = { stdin: 0, stdout: streams[0].id, stderr: streams[1].id };
    const params = { ...containerOf(id, harness().imageDisk), stdio, ...more };
    return { made: await call('createContainer', params, soon()), streams };
  };
  const exec = async (containerId: string, execId: string) => {
    const stdout = outputOf(harness().link);
    const stdio = { stdin: 0, stdout: stdout.id, stderr: 0 };
    await call('startExec', { containerId, execId, args: ['sleep', '1000'], tty: false, stdio }, soon());
    return stdout;
  };

  test('are made with a process and a user, and only once', async () => {
    const { made } = await create('once');
    assert.ok(made.pid > 1);
    assert.deepEqual([made.uid, made.gid], [0, 0]);
    await assert.rejects(create('once'), kind('alreadyExists'));
    await call('removeContainer', { id: 'once' }, soon());
    await create('once');
    await call('removeContainer', { id: 'once' }, soon());
  });

  test('are not there if they are removed while they are made', async () => {
    const making = create('unwanted').catch(kind('cancelled'));
    await call('removeContainer', { id: 'unwanted' }, soon());
    const { containers } = await call('list', {}, soon());
    assert.ok(!containers.some(({ id }) => id === 'unwanted'));
    await making;
    await create('unwanted');
    await call('removeContainer', { id: 'unwanted' }, soon());
  });

  test('are refused what is missing: their image, a volume, a device', async () => {
    await assert.rejects(create('lost', { imageDisk: 'none' }), kind('notFound'));
    const mounts = [{ volume: 'none', destination: '/mnt', readOnly: false }];
    await assert.rejects(create('lost', { mounts }), kind('notFound'));
    const devices = [{ disk: 'none', path: '/dev/x', readOnly: false }];
    await assert.rejects(create('lost', { devices }), kind('notFound'));
    await assert.rejects(call('startContainer', { id: 'lost' }, soon()), kind('notFound'));
  });

  test('run once they are started, and are counted', async () => {
    await create('runs');
    const { startedAtMs } = await call('startContainer', { id: 'runs' }, soon());
    assert.ok(startedAtMs > 0);
    const { containers } = await call('stats', {}, soon());
    assert.ok(containers.some(({ id }) => id === 'runs'));
    await call('metrics', { containerId: 'runs' }, soon());
    await assert.rejects(call('startContainer', { id: 'runs' }, soon()));
    await assert.rejects(
      call('readFile', { containerId: 'runs', path: '/no/such', maxBytes: 10 }, soon()),
      kind('notFound'),
    );
    await call('removeContainer', { id: 'runs' }, soon());
    assert.ok(!(await call('stats', {}, soon())).containers.some(({ id }) => id === 'runs'));
  });

  test('end by SIGKILL, not by a signal that they do not handle, with their output and what was run in them', async () => {
    const { streams } = await create('killed');
    await call('startContainer', { id: 'killed' }, soon());
    const stdout = await exec('killed', 'exec');
    await assert.rejects(exec('killed', 'exec'), kind('alreadyExists'));
    await call('signalContainer', { id: 'killed', signal: 15 }, soon());
    await call('ping', {}, soon());
    assert.deepEqual(
      exits.told.filter(({ containerId }) => containerId === 'killed'),
      [],
    );
    const ended = [...streams, stdout].map(endOf);
    await call('signalContainer', { id: 'killed', signal: 9 }, soon());
    const { exitCode, signal, oomKilled } = await exits.of('killed');
    assert.deepEqual([exitCode, signal, oomKilled], [137, 9, false]);
    assert.equal((await exits.of('killed', 'exec')).exitCode, 137);
    await Promise.all(ended);
    await call('signalContainer', { id: 'killed', signal: 9 }, soon()); // no error for an ended container
    await assert.rejects(exec('killed', 'late'), kind('failedPrecondition'));
    await call('removeContainer', { id: 'killed' }, soon());
    await call('removeContainer', { id: 'killed' }, soon());
  });

  test('are listed with what runs in them and how they ended, until they are removed', async () => {
    const listed = async () => (await call('list', {}, soon())).containers.filter(({ id }) => id === 'listed');
    const { made } = await create('listed');
    assert.deepEqual(await listed(), [{ id: 'listed', pid: made.pid, execs: [] }]);
    const { startedAtMs } = await call('startContainer', { id: 'listed' }, soon());
    await exec('listed', 'exec');
    const [running] = await listed();
    assert.equal(running?.startedAtMs, startedAtMs);
    assert.deepEqual(
      running.execs.map(({ execId }) => execId),
      ['exec'],
    );
    await call('signalContainer', { id: 'listed', signal: 9 }, soon());
    await Promise.all([exits.of('listed'), exits.of('listed', 'exec')]);
    const [ended] = await listed();
    assert.deepEqual([ended?.exit?.exitCode, ended?.exit?.signal, ended?.execs], [137, 9, []]);
    await call('removeContainer', { id: 'listed' }, soon());
    assert.deepEqual(await listed(), []);
  });

  test('continue when a command in them is killed', async () => {
    await create('goes-on');
    await call('startContainer', { id: 'goes-on' }, soon());
    const stdout = await exec('goes-on', 'exec');
    const ended = endOf(stdout);
    await call('signalExec', { containerId: 'goes-on', execId: 'exec', signal: 9 }, soon());
    assert.equal((await exits.of('goes-on', 'exec')).exitCode, 137);
    await ended;
    await call('signalExec', { containerId: 'goes-on', execId: 'exec', signal: 9 }, soon()); // no error for an ended command
    await exec('goes-on', 'exec');
    await call('removeContainer', { id: 'goes-on' }, soon());
  });

  test('are made while the guest connects, whose list tells how that ended', async () => {
    const listed = async () => (await call('list', {}, soon())).connection;
    await call('configure', configuration, soon());
    assert.equal(await listed(), undefined);
    const connecting = call('connect', connection, soon());
    const making = create('meanwhile');
    assert.deepEqual(await listed(), {});
    await Promise.all([connecting, making]);
    await call('removeContainer', { id: 'meanwhile' }, soon());
    const refused = call('connect', { ...connection, sysctls: { 'a b': '1' } }, soon());
    await assert.rejects(refused, kind('invalid'));
    assert.match(String((await listed())?.failure), /^Cannot set a sysctl: its name is invalid/);
    await call('connect', connection, soon());
    assert.deepEqual(await listed(), {});
  });

  test('prevent the guest from being configured again', async () => {
    await create('first');
    await assert.rejects(call('configure', configuration, soon()), kind('failedPrecondition'));
    await assert.rejects(call('connect', connection, soon()), kind('failedPrecondition'));
    await call('removeContainer', { id: 'first' }, soon());
  });
}

const configuration: Params<'configure'> = {
  ...{ hostname: 'x', realtimeMs: Date.now(), entropy: 'AAAA', machineId: '0'.repeat(32) },
  sharePidNamespace: false,
};
const connection: Params<'connect'> = { etcHosts: '', resolvConf: '', sysctls: {}, network: null, resources: {} };

function outputOf(link: Link): LinkStream {
  const stream = link.openStream();
  stream.on('error', () => {});
  stream.end();
  return stream;
}

function endOf(stream: LinkStream): Promise<void> {
  return new Promise((resolve) => {
    stream.once('end', resolve);
    stream.once('close', resolve);
    stream.resume();
  });
}

function containerOf(id: string, imageDisk: string): Params<'createContainer'> {
  return {
    id,
    imageDisk,
    readOnlyRootfs: false,
    tty: false,
    stdio: { stdin: 0, stdout: 0, stderr: 0 },
    process: {
      args: ['sleep', '1000'],
      env: [],
      cwd: '/',
      user: '',
      supplementalGroups: [],
      capabilities: [],
      noNewPrivileges: true,
      rlimits: [],
    },
    mounts: [],
    privileged: false,
    seccomp: null,
    resources: {},
  };
}
