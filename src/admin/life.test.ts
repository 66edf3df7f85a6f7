import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { podDescriptionSchema } from '#api/description.ts';
import { nodeEventSchema, podDetailsSchema, podOutcomeSchema, podSummarySchema } from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import type { ContainerSpec } from '#sandbox/sandbox.ts';
import { eventsOf, on, openAdmin, refusalOf, run, type Served, yaml } from './testing/served-admin.ts';

const quick = { behaviours: { main: { onStart: (it: { exit: (code: number) => void }) => it.exit(3) } } };

const listed = async (served: Served, query = '?ended=true') =>
  v
    .parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', `/v1/pods${query}`)).body))
    .map(({ name, phase, exitCode }) => [name, phase, exitCode]);

/** Runs the pod `web` to its end in the foreground. */
async function runToEnd(served: Served, options: object = {}) {
  const socket = served.talk('/v1/run');
  await once(socket, 'open');
  socket.send(JSON.stringify({ files: [{ name: 'web.yaml', text: yaml }], network: 'none', ...options }));
  return await Array.fromAsync(eventsOf(socket));
}

describe('a pod that has ended', () => {
  test('is kept with its exit code until it is removed', async () => {
    await using served = await openAdmin(quick);
    assert.deepEqual((await runToEnd(served)).at(-1), { event: 'finished', exitCode: 3 });
    assert.deepEqual(served.parts.sandboxes.list(), [], 'its machine does not stay');
    assert.deepEqual(await listed(served, ''), []);
    assert.deepEqual(await listed(served), [['web', 'Failed', 3]]);
    const details = v.parse(podDetailsSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web')).body));
    assert.deepEqual([details.containers[0]?.exitCode, details.reason], [3, 'Error']);
    assert.ok(details.events.some(({ reason }) => reason === 'Started'));
    const outcome = v.parse(podOutcomeSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web/wait')).body));
    assert.deepEqual(outcome, { exitCode: 3, reason: 'Error' });
    const { body } = await served.call('GET', '/v1/pods/_/web/description');
    const described = v.parse(podDescriptionSchema, JSON.parse(body));
    assert.deepEqual([described.phase, described.reason, described.machine], ['Failed', 'Error', undefined]);
    assert.deepEqual([described.containers[0]?.exitCode, described.events], [3, details.events]);
    assert.equal((await served.call('POST', '/v1/pods/_/web/stop', '{}')).status, 200);
    assert.equal((await served.call('DELETE', '/v1/pods/_/web')).status, 200);
    assert.deepEqual(await listed(served), []);
    assert.equal((await refusalOf(served, 'GET', '/v1/pods/_/web/wait')).kind, 'notFound');
  });

  test('is not kept with removeAtEnd', async () => {
    await using served = await openAdmin(quick);
    await runToEnd(served, { removeAtEnd: true });
    assert.deepEqual(await listed(served), []);
  });

  test('ends again after three tries of a registry that does not answer, when it is started', async () => {
    let isThere = true;
    const createError = () => (isThere ? undefined : new PodvmError('unavailable', 'the registry does not answer'));
    await using served = await openAdmin({ behaviours: { main: { ...quick.behaviours.main, createError } } });
    await runToEnd(served);
    isThere = false;
    const start = served.call('POST', '/v1/pods/_/web/start', '{}');
    const isTried = async () => (served.parts.clock.pending > 0 ? true : undefined);
    for (const seconds of [10, 20]) {
      assert.ok(await poll(isTried, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), 'a try waits for the next');
      await served.parts.clock.advance(seconds * 1000);
    }
    await start;
    const { body } = await served.call('GET', '/v1/pods/_/web/wait');
    assert.equal(v.parse(podOutcomeSchema, JSON.parse(body)).exitCode, 125);
  });

  test('refuses calls that need a running pod, with the reason', async () => {
    await using served = await openAdmin(quick);
    await runToEnd(served);
    assert.equal((await refusalOf(served, 'GET', '/v1/pods/_/web/console')).kind, 'failedPrecondition');
    for (const session of ['attach', 'exec?command=true', 'input', 'port-forward?port=80']) {
      const messages = await Array.fromAsync(on(served.talk(`/v1/pods/_/web/${session}`)));
      assert.match(String(messages[0]?.[0]), /"kind":"failedPrecondition".*the pod has ended/, session);
    }
  });

  test('is replaced by a new pod of its name', async () => {
    await using served = await openAdmin(quick);
    await runToEnd(served);
    await runToEnd(served);
    assert.deepEqual(await listed(served), [['web', 'Failed', 3]]);
  });

  test('starts again under a new name, from its manifest', async () => {
    await using served = await openAdmin();
    const socket = await run(served);
    assert.match((await refusalOf(served, 'POST', '/v1/pods/_/web/rename', '{"name":"b"}')).message, /the pod runs/);
    socket.send('{"command":"kill"}');
    await once(socket, 'close');
    assert.equal((await refusalOf(served, 'POST', '/v1/pods/_/web/rename', '{"name":"../x"}')).kind, 'invalid');
    assert.equal((await refusalOf(served, 'POST', '/v1/pods/_/web/rename', '{"name":"web"}')).kind, 'alreadyExists');
    assert.equal((await served.call('POST', '/v1/pods/_/web/rename', '{"name":"site"}')).status, 200);
    assert.equal((await served.call('POST', '/v1/pods/_/site/start', '{}')).status, 200);
    assert.deepEqual(await listed(served), [['site', 'Running', undefined]]);
    const { spec } = served.parts.sandboxes.list()[0] ?? {};
    assert.deepEqual([spec?.name, spec?.network], ['site', 'none']);
    assert.equal((await refusalOf(served, 'DELETE', '/v1/pods/_/site')).kind, 'failedPrecondition');
    assert.equal((await served.call('DELETE', '/v1/pods/_/site?force=true')).status, 200);
    assert.deepEqual(await listed(served), []);
  });
});

describe('a detached pod', () => {
  const detach = async (served: Served) => await runToEnd(served, { detach: true });

  test('belongs to the node and not to its client', async () => {
    await using served = await openAdmin();
    const events = await detach(served);
    assert.deepEqual(events.slice(-2), [
      { event: 'podDetached', pod: 'web' },
      { event: 'finished', exitCode: 0 },
    ]);
    await served.server.idle();
    assert.deepEqual(await listed(served), [['web', 'Running', undefined]]);
    const waiting = served.call('GET', '/v1/pods/_/web/wait');
    served.parts.sandboxes.current('main').exit(4);
    assert.equal(v.parse(podOutcomeSchema, JSON.parse((await waiting).body)).exitCode, 4);
    assert.deepEqual(await listed(served), [['web', 'Failed', 4]]);
  });

  test('that cannot run reports the reason, and ends the client with its code', async () => {
    await using served = await openAdmin({ runError: new PodvmError('internal', 'no machine') });
    const events = await detach(served);
    assert.deepEqual(
      events.filter(({ event }) => event !== 'pod'),
      [
        { event: 'podFinished', pod: 'web', exitCode: 125, reason: 'no machine' },
        { event: 'finished', exitCode: 125 },
      ],
    );
    assert.deepEqual(await listed(served), [['web', 'Failed', 125]]);
  });

  test('ends with a node that ends its pods', async () => {
    await using served = await openAdmin();
    await detach(served);
    const { sandboxes, ended } = served.parts;
    await served.server.endPods();
    assert.deepEqual(sandboxes.list(), []);
    assert.deepEqual(
      ended.list().map(({ name, outcome }) => [name, outcome.exitCode]),
      [['web', 143]],
    );
  });

  test('is refused by a process that ends with its command', async () => {
    await using served = await openAdmin({}, { mayDetach: false });
    const [event] = await detach(served);
    assert.match(JSON.stringify(event), /"kind":"failedPrecondition".*Cannot detach/);
  });

  test('restarts with a new instance, and keeps its name', async () => {
    await using served = await openAdmin();
    await detach(served);
    assert.equal((await served.call('POST', '/v1/pods/_/web/restart', '{}')).status, 200);
    assert.deepEqual(await listed(served), [['web', 'Running', undefined]]);
    assert.equal(served.parts.sandboxes.runs.length, 2);
  });

  test('shows its output and end to attached clients, and continues when they detach', async () => {
    await using served = await openAdmin();
    await detach(served);
    const leaving = served.talk('/v1/pods/_/web/attach');
    await once(leaving, 'message');
    const messages = on(served.talk('/v1/pods/_/web/attach'));
    assert.match(String((await messages.next()).value?.[0]), /"event":"source"/);
    leaving.terminate();
    await served.parts.sandboxes.current('main').print('hello');
    const output = (await messages.next()).value?.[0] as Buffer;
    assert.equal(output.subarray(3).toString(), 'hello');
    served.parts.sandboxes.current('main').exit(4);
    const events = (await Array.fromAsync(messages)).map(([data]) => JSON.parse(String(data)) as object);
    assert.deepEqual(events.at(-1), { event: 'finished', exitCode: 4 });
  });
});

describe('events of a node', () => {
  const reasonsOf = (body: string) =>
    body
      .trimEnd()
      .split('\n')
      .map((line) => v.parse(nodeEventSchema, JSON.parse(line)))
      .map(({ name, reason }) => `${name} ${reason}`);

  test('are those of all pods, including ended ones, or of one pod', async () => {
    await using served = await openAdmin(quick);
    await runToEnd(served);
    assert.deepEqual(reasonsOf((await served.call('GET', '/v1/events')).body), ['web Created', 'web Started']);
    const missing = await refusalOf(served, 'GET', '/v1/events?name=wev');
    assert.deepEqual([missing.kind, missing.fix?.slice(0, 16)], ['notFound', 'Did you mean web']);
    assert.deepEqual(reasonsOf((await served.call('GET', '/v1/events?namespace=pod&name=web')).body)[0], 'web Created');
  });

  test('continue with new ones, including those of later pods', async () => {
    await using served = await openAdmin();
    const outgoing = request({ socketPath: served.socketPath, path: '/v1/events?follow=true', agent: false }).end();
    await run(served, { detach: true }).catch(() => undefined);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    let seen = '';
    for await (const chunk of response as AsyncIterable<Buffer>) {
      seen += chunk.toString();
      if (seen.includes('Started')) break;
    }
    assert.deepEqual(reasonsOf(seen), ['web Created', 'web Started']);
  });
});

describe('a signal', () => {
  test('reaches the running containers, after which the restart policy applies', async () => {
    await using served = await openAdmin();
    await run(served, { detach: true }).catch(() => undefined);
    for (const body of ['{"signal":0}', '{"signal":65}', '{"signal":"HUP"}']) {
      assert.equal((await refusalOf(served, 'POST', '/v1/pods/_/web/kill', body)).kind, 'invalid');
    }
    const absent = await refusalOf(served, 'POST', '/v1/pods/_/web/kill', '{"signal":1,"container":"other"}');
    assert.equal(absent.kind, 'notFound');
    const waiting = served.call('GET', '/v1/pods/_/web/wait');
    assert.equal((await served.call('POST', '/v1/pods/_/web/kill', '{"signal":10}')).status, 200);
    assert.equal(v.parse(podOutcomeSchema, JSON.parse((await waiting).body)).exitCode, 138);
    assert.match((await refusalOf(served, 'POST', '/v1/pods/_/web/kill', '{"signal":10}')).message, /has ended/);
  });
});

test('a resize changes the limits of a container in place, of the manifest, and of the pod that starts again', async () => {
  await using served = await openAdmin();
  await run(served, { detach: true });
  const path = '/v1/pods/_/web';
  const limitsNow = async () => {
    const { body } = await served.call('GET', `${path}/manifest`);
    const { kind, spec } = v.parse(manifestSchema, JSON.parse(body));
    return [kind, spec.containers[0]?.resources.limits];
  };
  assert.deepEqual(await limitsNow(), ['Pod', {}]);
  for (const body of ['{"container":"main"}', '{"container":"main","memoryLimitBytes":0}', '{"memoryLimitBytes":1}'])
    assert.equal((await refusalOf(served, 'POST', `${path}/resize`, body)).kind, 'invalid', body);
  const wish = '{"container":"main","memoryLimitBytes":67108864,"cpuLimitMillis":250}';
  assert.deepEqual(await served.call('POST', `${path}/resize`, wish), { status: 200, body: '{"warnings":[]}\n' });
  assert.deepEqual(await limitsNow(), ['Pod', { memory: '67108864', cpu: '250m' }]);
  assert.equal((await served.call('POST', `${path}/restart`)).status, 200);
  assert.equal(served.parts.sandboxes.current('main').spec.resources.memoryLimitBytes, 67_108_864);
  await served.call('POST', `${path}/stop`);
  assert.match(
    (await refusalOf(served, 'POST', `${path}/resize`, wish)).message,
    /^Cannot resize web: the pod has ended$/,
  );
  assert.deepEqual(await limitsNow(), ['Pod', { memory: '67108864', cpu: '250m' }]);
});

const manifestSchema = v.object({
  kind: v.string(),
  spec: v.object({
    containers: v.array(v.object({ resources: v.object({ limits: v.record(v.string(), v.string()) }) })),
  }),
});

test('limits of a pod that ends while they change hold when it is started again', async () => {
  await using served = await openAdmin();
  await run(served, { detach: true });
  const [sandbox] = served.parts.sandboxes.list();
  assert.ok(sandbox);
  sandbox.resize = async () => {
    await served.call('POST', '/v1/pods/_/web/stop', '{}');
    return [];
  };
  const wish = '{"container":"main","memoryLimitBytes":67108864}';
  assert.equal((await served.call('POST', '/v1/pods/_/web/resize', wish)).status, 200);
  assert.equal((await served.call('POST', '/v1/pods/_/web/start')).status, 200);
  assert.equal(served.parts.sandboxes.current('main').spec.resources.memoryLimitBytes, 67_108_864);
});

test('a node is idle without running pods and clients', async () => {
  await using served = await openAdmin();
  const { clock } = served.parts;
  let isIdle = false;
  void served.server.idleFor(1000, new AbortController().signal).then(() => (isIdle = true));
  await runToEnd(served, { detach: true });
  await served.server.idle();
  await clock.advance(2000);
  assert.equal(isIdle, false, 'a pod runs');
  assert.equal((await served.call('POST', '/v1/pods/_/web/stop', '{}')).status, 200);
  await clock.advance(999);
  assert.equal(isIdle, false);
  await clock.advance(1);
  assert.equal(isIdle, true);
});

describe('a forwarded port', () => {
  const open = async (served: Served, port: number) => {
    await run(served, { detach: true }).catch(() => undefined);
    return served.talk(`/v1/pods/_/web/port-forward?port=${port}`);
  };

  test('carries bytes and the end in both directions', async () => {
    const guest = new PassThrough(); // echoes
    let dialled = 0;
    await using served = await openAdmin({
      onDial: (port) => {
        dialled = port;
        return guest;
      },
    });
    const socket = await open(served, 80);
    await once(socket, 'open');
    socket.send(Buffer.from('ping'));
    socket.send(Buffer.alloc(0));
    const frames = (await Array.fromAsync(on(socket))).map(([data]) => String(data));
    assert.deepEqual([dialled, frames.join('|')], [80, 'ping|']);
    assert.ok(guest.destroyed);
  });

  test('reports why it cannot connect', async () => {
    await using served = await openAdmin();
    for (const [port, kind] of [
      [81, 'unavailable'],
      [70_000, 'invalid'],
    ] as const) {
      const [first] = await Array.fromAsync(on(await open(served, port)));
      assert.match(String(first?.[0]), new RegExp(`"kind":"${kind}"`));
    }
  });
});

describe('a paused pod', () => {
  const probed = yaml.replace(
    'image: i',
    `image: i, livenessProbe: { tcpSocket: { port: 80 }, periodSeconds: 1, failureThreshold: 1 }`,
  );
  const stateOf = async (served: Served) =>
    v.parse(podSummarySchema, JSON.parse((await served.call('GET', '/v1/pods/_/web')).body)).phase;

  test('is shown as such, is not probed, and continues', async () => {
    let isOpen = true;
    const onDial = () => (isOpen ? new PassThrough() : undefined);
    await using served = await openAdmin({ onDial });
    const socket = await run(served, { files: [{ name: 'web.yaml', text: probed }] });
    assert.equal((await served.call('POST', '/v1/pods/_/web/pause')).status, 200);
    assert.equal((await served.call('POST', '/v1/pods/_/web/pause')).status, 200, 'twice is no error');
    assert.equal(await stateOf(served), 'Paused');
    isOpen = false;
    await served.parts.clock.advance(20_000);
    const details = v.parse(podDetailsSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web')).body));
    assert.deepEqual(
      details.events.filter(({ reason }) => ['Unhealthy', 'Paused'].includes(reason)).map(({ reason }) => reason),
      ['Paused'],
    );
    isOpen = true;
    assert.equal((await served.call('POST', '/v1/pods/_/web/unpause')).status, 200);
    assert.equal(await stateOf(served), 'Running');
    await served.parts.clock.advance(5_000);
    assert.equal(served.parts.sandboxes.current('main').status.state, 'running');
    isOpen = false;
    await served.parts.clock.advance(5_000); // the probe that it is not spared any more
    assert.match((await served.call('GET', '/v1/pods/_/web')).body, /Unhealthy/);
    socket.close();
  });

  test('can be stopped, and only a running pod be paused', async () => {
    await using served = await openAdmin();
    await run(served);
    await served.call('POST', '/v1/pods/_/web/pause');
    assert.equal((await served.call('POST', '/v1/pods/_/web/stop', '{"graceSeconds":0}')).status, 200);
    const refused = await refusalOf(served, 'POST', '/v1/pods/_/web/pause');
    assert.deepEqual([refused.kind, refused.message], ['failedPrecondition', 'Cannot pause web: the pod has ended']);
    assert.equal((await refusalOf(served, 'POST', '/v1/pods/_/none/unpause')).kind, 'notFound');
  });
});

describe('WS .../debug', () => {
  const debug = async (served: Served, query: string) => {
    const messages = await Array.fromAsync(on(served.talk(`/v1/pods/_/web/debug?${query}`)));
    const text = (channel: number) =>
      messages.flatMap(([data]) => ((data as Buffer)[0] === channel ? [String(data).slice(1)] : [])).join('');
    return { stdout: text(1), status: JSON.parse(text(3)) as { exitCode?: number; error?: { message: string } } };
  };

  test('runs a container that sees the processes of another, and removes it', async () => {
    const behaviours = {} as Record<string, object>;
    await using served = await openAdmin({ behaviours });
    await run(served);
    const [sandbox] = served.parts.sandboxes.list();
    assert.ok(sandbox);
    const createContainer = sandbox.createContainer.bind(sandbox);
    const specs: ContainerSpec[] = [];
    sandbox.createContainer = async (spec, signal) => {
      specs.push(spec);
      behaviours[spec.name] = { onStart: (it: { exit: (code: number) => void }) => it.exit(7) };
      return await createContainer(spec, signal);
    };
    const { status } = await debug(served, 'image=tools&command=ps&command=%24(HOME)');
    assert.deepEqual(status, { exitCode: 7 });
    const [spec] = specs;
    const target = sandbox.container('main')?.status.id;
    assert.deepEqual([spec?.image, spec?.command, spec?.pidNamespaceOf], ['tools', ['ps', '$(HOME)'], target]);
    assert.deepEqual([spec?.security.runAsUser, spec?.security.addCapabilities], [0, ['SYS_PTRACE']]);
    assert.match(spec?.name ?? '', /^debugger-[0-9a-f]{6}$/);
    assert.equal(served.parts.sandboxes.current(spec?.name ?? '').isRemoved, true);
  });

  test('says why it cannot', async () => {
    await using served = await openAdmin();
    await run(served);
    const messageOf = async (query: string) => (await debug(served, query)).status.error?.message;
    assert.match((await messageOf('image=tools&container=none&command=x')) ?? '', /its container none does not run/);
    assert.match((await messageOf('image=&command=x')) ?? '', /^Cannot debug web: /);
    await served.call('POST', '/v1/pods/_/web/pause');
    assert.match((await messageOf('image=tools&command=x')) ?? '', /the pod is paused/);
  });
});
