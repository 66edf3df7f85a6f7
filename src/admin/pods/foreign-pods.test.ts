import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { guestText } from '#base/guest-text.ts';
import { podDetailsSchema, podSummarySchema } from '#api/pods.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { SandboxSpec } from '#sandbox/sandbox.ts';
import { on, openAdmin, refusalOf, run, type Served } from '../testing/served-admin.ts';

const never = new AbortController().signal;

async function foreign(served: Served, more: Partial<SandboxSpec> = {}) {
  const { sandboxes } = served.parts;
  const spec = {
    ...sandboxSpec,
    namespace: 'kube-system',
    name: 'dns',
    isKept: true,
    keptFor: 'cri',
    ...more,
  } as const;
  const sandbox = await sandboxes.run(spec, never);
  const container = await sandbox.createContainer({ ...containerSpec, name: 'main' }, never);
  await container.start(never);
  return sandbox;
}
const listed = async (served: Served) =>
  v
    .parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', '/v1/pods')).body))
    .map(({ name, owner, phase, ready }) => [name, owner ?? 'podvm', phase, ready]);

describe('a pod of another program', () => {
  test('is in the same list with its owner, and can be inspected and connected to', async () => {
    await using served = await openAdmin({ onDial: () => new PassThrough() });
    await foreign(served);
    await foreign(served, { name: 'web-1', keptFor: 'containerd' });
    await run(served, { detach: true }).catch(() => undefined);
    assert.deepEqual(await listed(served), [
      ['web', 'podvm', 'Running', '1/1'],
      ['dns', 'kubelet', 'Running', '1/1'],
      ['web-1', 'containerd', 'Running', '1/1'],
    ]);
    const { body } = await served.call('GET', '/v1/pods/_/dns');
    const details = v.parse(podDetailsSchema, JSON.parse(body));
    assert.deepEqual([details.owner, details.containers[0]?.state], ['kubelet', 'running']);
    assert.ok(details.sandbox?.stats !== undefined, 'top and inspect have figures');
    const exec = await Array.fromAsync(on(served.talk('/v1/pods/kube-system/dns/exec?command=true')));
    assert.match(String(exec.at(-1)?.[0]), /"exitCode":0/);
    const socket = served.talk('/v1/pods/_/dns/port-forward?port=80');
    socket.on('open', () => {
      socket.send(Buffer.from('ping'));
      socket.send(Buffer.alloc(0));
    });
    const frames = (await Array.fromAsync(on(socket))).map(([data]) => String(data));
    assert.equal(frames.join(''), 'ping');
  });

  test('is not stopped, removed or run again, with a reason and a fix', async () => {
    await using served = await openAdmin();
    const sandbox = await foreign(served);
    for (const [method, path] of [
      ['POST', 'stop'],
      ['POST', 'start'],
      ['POST', 'restart'],
      ['POST', 'rename'],
      ['GET', 'wait'],
      ['DELETE', ''],
    ] as const) {
      const url = `/v1/pods/_/dns${path && `/${path}`}?force=true`;
      const { kind, message } = await refusalOf(
        served,
        method,
        url,
        method === 'POST' ? '{"name":"other"}' : undefined,
      );
      assert.equal(kind, 'failedPrecondition', path);
      assert.match(message, /Cannot .* dns: the pod belongs to a kubelet or another client of CRI/);
    }
    for (const session of ['attach', 'input']) {
      const messages = await Array.fromAsync(on(served.talk(`/v1/pods/_/dns/${session}`)));
      assert.match(String(messages[0]?.[0]), /belongs to a kubelet.*kubectl/, session);
    }
    assert.equal(sandbox.status.state, 'ready');
  });

  test('is listed with the reason and can be ended if only another podvm can take it over', async () => {
    await using served = await openAdmin();
    const stopped = new Set<string>();
    const why = 'Cannot take over kube-system/dns: a newer podvm has written its record\u001b';
    for (const [name, keptFor] of [
      ['dns', 'cri'],
      ['own', 'podvm'],
    ] as const) {
      const sandbox = await foreign(served, { name, keptFor });
      const { status } = sandbox;
      Object.defineProperty(sandbox, 'status', {
        get: () => ({ ...status, ...(stopped.has(name) ? { state: 'stopped' } : { leftAlone: why }) }),
      });
      Object.defineProperty(sandbox, 'stop', { value: async () => void stopped.add(name) });
    }
    const { body } = await served.call('GET', '/v1/pods');
    const shown = v.parse(v.array(podSummarySchema), JSON.parse(body)).map(({ name, owner, reason, message }) => ({
      ...{ name, owner, reason, message },
    }));
    const message = why.replace('\u001b', '\\u001b');
    assert.deepEqual(shown, [
      { name: 'dns', owner: 'kubelet', reason: 'LeftAlone', message },
      { name: 'own', owner: 'podvm', reason: 'LeftAlone', message },
    ]);
    const refusal = await refusalOf(served, 'POST', '/v1/pods/_/dns/restart', '{}');
    assert.match(refusal.message, /^Cannot restart dns: Cannot take over kube-system\/dns/);
    for (const name of ['dns', 'own']) {
      assert.equal((await served.call('POST', `/v1/pods/_/${name}/stop`, '{}')).status, 200);
    }
    assert.deepEqual([...stopped], ['dns', 'own']);
    assert.deepEqual(await listed(served), [['dns', 'kubelet', 'Stopped', '1/1']], 'its client removes its own');
  });

  test('has its console from memory if there is no file', async () => {
    await using served = await openAdmin();
    const sandbox = await foreign(served);
    const inMemory = { consolePath: '/nonexistent', consoleTail: async () => [guestText('Kernel \u001b panic')] };
    Object.assign(sandbox, inMemory);
    assert.equal((await served.call('GET', '/v1/pods/_/dns/console')).body, 'Kernel \\u001b panic\n');
    Object.assign(sandbox, { consoleTail: async () => [] });
    assert.match((await refusalOf(served, 'GET', '/v1/pods/_/dns/console')).message, /it is switched off/);
  });

  test('is its newest sandbox, and a pod of this process takes precedence for its name', async () => {
    await using served = await openAdmin();
    const first = await foreign(served, { namespace: 'default', name: 'web', attempt: 0 });
    await first.stop(0);
    assert.deepEqual(await listed(served), [['web', 'kubelet', 'Stopped', '0/1']]);
    await first.remove();
    await run(served, { detach: true }).catch(() => undefined);
    assert.deepEqual(await listed(served), [['web', 'podvm', 'Running', '1/1']]);
  });
});
