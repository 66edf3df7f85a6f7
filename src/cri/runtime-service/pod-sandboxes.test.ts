import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import { ContainerState, NamespaceMode, PodSandboxState, Protocol } from '../schema/api_pb.ts';
import { is } from '../testing/grpc-client.ts';
import { containerConfig, openFakeNode, podConfig } from '../testing/fake-node.ts';

const hostNamespaces = [
  ['network', /hostNetwork is not supported[^]*use hostPort/],
  ['pid', /hostPID is not supported[^]*use shareProcessNamespace/],
  ['ipc', /hostIPC is not supported[^]*Remove hostIPC/],
] as const;

test('runPodSandbox() refuses missing or invalid values with a message, and leaves nothing', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  await assert.rejects(runtime.runPodSandbox({}), is(status.INVALID_ARGUMENT, /no config/));
  await assert.rejects(runtime.runPodSandbox({ config: {} }), is(status.INVALID_ARGUMENT, /no metadata/));
  const { metadata } = podConfig;
  for (const bad of [{ name: '' }, { name: 'a/b' }, { namespace: 'x'.repeat(254) }, { uid: 'a\u0000' }]) {
    const config = { ...podConfig, metadata: { ...metadata, ...bad } };
    await assert.rejects(runtime.runPodSandbox({ config }), is(status.INVALID_ARGUMENT, /must have 1 to 253/));
  }
  const annotations = { large: 'x'.repeat(10 * 1024 * 1024) };
  await assert.rejects(
    runtime.runPodSandbox({ config: { ...podConfig, annotations } }),
    is(status.INVALID_ARGUMENT, /at most 1048576 characters/),
  );
  await assert.rejects(
    runtime.runPodSandbox({ config: podConfig, runtimeHandler: 'runc' }),
    is(status.INVALID_ARGUMENT, /Use one of podvm/),
  );
  for (const [kind, words] of hostNamespaces) {
    const config = { ...podConfig, linux: { securityContext: { namespaceOptions: { [kind]: NamespaceMode.NODE } } } };
    await assert.rejects(runtime.runPodSandbox({ config }), is(status.UNIMPLEMENTED, words));
  }
  assert.deepEqual((await runtime.listPodSandbox()).items, []);
});

test('runPodSandbox() makes a pod whose list entry and status match the request', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig, runtimeHandler: 'podvm' });
  const { items } = await runtime.listPodSandbox();
  assert.equal(items.length, 1);
  const { status: told } = await runtime.podSandboxStatus({ podSandboxId: podSandboxId.slice(0, 13) });
  for (const seen of [items[0], told]) {
    assert.equal(seen?.id, podSandboxId);
    assert.equal(seen.state, PodSandboxState.SANDBOX_READY);
    assert.equal(seen.metadata?.uid, 'u-1');
    assert.deepEqual(seen.labels, podConfig.labels);
    assert.deepEqual(seen.annotations, podConfig.annotations);
    assert.equal(seen.runtimeHandler, 'podvm');
    assert.ok(seen.createdAt > 1_700_000_000_000_000_000n);
  }
  assert.equal(told?.network?.ip, '10.1.0.5');
});

test('runPodSandbox() returns the first call’s sandbox to a second call, and makes a new one for another attempt', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const [first, beside] = await Promise.all([
    runtime.runPodSandbox({ config: podConfig }),
    runtime.runPodSandbox({ config: podConfig }),
  ]);
  const after = await runtime.runPodSandbox({ config: podConfig });
  assert.deepEqual([beside.podSandboxId, after.podSandboxId], [first.podSandboxId, first.podSandboxId]);

  await runtime.stopPodSandbox({ podSandboxId: first.podSandboxId });
  await assert.rejects(
    runtime.runPodSandbox({ config: podConfig }),
    is(status.ALREADY_EXISTS, /is stopped.*Remove that pod sandbox first/),
  );
  const next = { ...podConfig, metadata: { ...podConfig.metadata, attempt: 1 } };
  const second = await runtime.runPodSandbox({ config: next });
  assert.notEqual(second.podSandboxId, first.podSandboxId);
  assert.equal((await runtime.listPodSandbox()).items.length, 2);
});

test('a cancelled runPodSandbox() is undone; one that timed out continues for the retry', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const held = () => {
    const gate = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    parts.before = async (step, signal) => {
      if (step !== 'driver.start') return;
      entered.resolve();
      await Promise.race([gate.promise, new Promise((resolve) => signal.addEventListener('abort', resolve))]);
      signal.throwIfAborted();
    };
    return { open: gate.resolve, entered: entered.promise };
  };

  const first = held();
  const stop = new AbortController();
  const cancelled = assert.rejects(
    runtime.runPodSandbox({ config: podConfig }, { signal: stop.signal }),
    is(status.CANCELLED),
  );
  await first.entered;
  stop.abort();
  await cancelled;
  parts.before = async () => {};
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig }); // waits for the undo
  assert.equal(parts.alive.has('machine'), true);
  await runtime.removePodSandbox({ podSandboxId });
  assert.deepEqual([...parts.alive], []);

  const second = held();
  await assert.rejects(
    runtime.runPodSandbox({ config: podConfig }, { deadline: Date.now() + 100 }),
    is(status.DEADLINE_EXCEEDED),
  );
  const retried = runtime.runPodSandbox({ config: podConfig });
  second.open();
  const got = await retried;
  assert.deepEqual(
    (await runtime.listPodSandbox()).items.map(({ id }) => id),
    [got.podSandboxId],
  );
});

test('a failed start is reported to all waiting calls, and can be retried', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  parts.before = async (step) => {
    if (step === 'link.connect') throw new PodvmError('exhausted', 'Cannot connect: no more of it');
  };
  const both = [runtime.runPodSandbox({ config: podConfig }), runtime.runPodSandbox({ config: podConfig })];
  for (const one of both) await assert.rejects(one, is(status.RESOURCE_EXHAUSTED, /no more of it/));
  parts.before = async () => {};
  await runtime.runPodSandbox({ config: podConfig });
});

test('stop and remove accept missing, stopped and removed sandboxes', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId, containerId } = await node.running();
  await runtime.stopPodSandbox({ podSandboxId: 'nothing' });
  await runtime.removePodSandbox({ podSandboxId: 'nothing' });
  await Promise.all([runtime.stopPodSandbox({ podSandboxId }), runtime.stopPodSandbox({ podSandboxId })]);
  await runtime.stopPodSandbox({ podSandboxId });
  const stopped = await runtime.podSandboxStatus({ podSandboxId });
  assert.equal(stopped.status?.state, PodSandboxState.SANDBOX_NOTREADY);
  assert.equal(stopped.status.network?.ip, '');
  assert.equal(stopped.containersStatuses[0]?.id, containerId);
  await Promise.all([runtime.removePodSandbox({ podSandboxId }), runtime.removePodSandbox({ podSandboxId })]);
  await runtime.removePodSandbox({ podSandboxId });
  await assert.rejects(runtime.podSandboxStatus({ podSandboxId }), is(status.NOT_FOUND, /no such id/));
  await assert.rejects(runtime.containerStatus({ containerId }), is(status.NOT_FOUND));
  await assert.rejects(runtime.stopPodSandbox(), is(status.INVALID_ARGUMENT, /no id/));
  await assert.rejects(runtime.removePodSandbox(), is(status.INVALID_ARGUMENT, /no id/));
});

test('listPodSandbox() filters by id, state and labels; streamPodSandboxes() lists the same', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const named = (name: string) => ({ ...podConfig, metadata: { ...podConfig.metadata, name }, labels: { app: name } });
  const a = await runtime.runPodSandbox({ config: named('a') });
  const b = await runtime.runPodSandbox({ config: named('b') });
  await runtime.stopPodSandbox({ podSandboxId: a.podSandboxId });
  const filters = [
    [{}, [b, a]],
    [{ id: a.podSandboxId }, [a]],
    [{ id: 'nothing' }, []],
    [{ state: { state: PodSandboxState.SANDBOX_READY } }, [b]],
    [{ labelSelector: { app: 'a' } }, [a]],
    [{ labelSelector: { app: 'a', other: 'x' } }, []],
  ] as const;
  for (const [filter, wanted] of filters) {
    const ids = wanted.map(({ podSandboxId }) => podSandboxId);
    assert.deepEqual(
      (await runtime.listPodSandbox({ filter })).items.map(({ id }) => id),
      ids,
    );
    const streamed: string[] = [];
    for await (const { podSandboxes } of runtime.streamPodSandboxes({ filter }))
      streamed.push(...podSandboxes.map(({ id }) => id));
    assert.deepEqual(streamed, ids);
  }
  const prefix = await runtime.podSandboxStatus({ podSandboxId: b.podSandboxId.slice(0, 8) });
  assert.equal(prefix.status?.id, b.podSandboxId);
  await assert.rejects(
    runtime.podSandboxStatus({ podSandboxId: 'sb-' }),
    is(status.INVALID_ARGUMENT, /the prefix matches 2 ids/),
  );
});

test('a pod whose machine ended is not ready, its containers have ended, and it can be removed', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  parts.killMachine('it was killed');
  // The pod is not ready from the machine's end; its containers end once the console's last words are read.
  const ended = async () => {
    const { status: container } = await runtime.containerStatus({ containerId });
    return container?.state === ContainerState.CONTAINER_EXITED ? container : undefined;
  };
  const container = await poll(ended, { everyMs: 5, signal: AbortSignal.timeout(30_000) });
  const { status: pod } = await runtime.podSandboxStatus({ podSandboxId });
  assert.equal(pod?.state, PodSandboxState.SANDBOX_NOTREADY);
  assert.equal(container?.exitCode, 137);
  assert.match(container.message, /it was killed/);
  await assert.rejects(
    runtime.createContainer({ podSandboxId, config: containerConfig }),
    is(status.FAILED_PRECONDITION, /it was killed/),
  );
  await runtime.removeContainer({ containerId });
  await runtime.removePodSandbox({ podSandboxId });
});

test('updatePodSandboxResources() resizes pod and overhead together', async () => {
  await using node = await openFakeNode();
  const { podSandboxId } = await node.runtime.runPodSandbox({ config: podConfig });
  const mebibyte = 1024n * 1024n;
  const resources = { memoryLimitInBytes: 64n * mebibyte, cpuQuota: 150_000n };
  await node.runtime.updatePodSandboxResources({
    podSandboxId,
    resources,
    overhead: { memoryLimitInBytes: 16n * mebibyte },
  });
  const asked = node.parts.guest.calls.findLast(({ method }) => method === 'updatePod');
  assert.deepEqual(asked?.params['resources'], {
    memoryLimitBytes: 80 * 1024 * 1024,
    cpuQuotaUs: 150_000,
    cpuPeriodUs: 100_000,
  });
});

test('runPodSandbox() applies user mappings, and refuses invalid ones', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const withUsers = (usernsOptions: object) => ({
    ...podConfig,
    linux: { securityContext: { namespaceOptions: { usernsOptions } } },
  });
  const ids = [{ containerId: 0, hostId: 1000, length: 100_000 }];
  const pod = withUsers({ mode: NamespaceMode.POD, uids: ids, gids: ids });
  const { podSandboxId } = await runtime.runPodSandbox({ config: pod });
  const mapped = [{ containerId: 0, hostId: 1000, size: 100_000 }];
  const configured = parts.guest.calls.find(({ method }) => method === 'configure');
  assert.deepEqual(configured?.params['userNamespace'], { uids: mapped, gids: mapped });

  const containerOf = (usernsOptions: object) => ({
    ...containerConfig,
    linux: { securityContext: { namespaceOptions: { usernsOptions } } },
  });
  const other = containerOf({ mode: NamespaceMode.NODE });
  await assert.rejects(
    runtime.createContainer({ podSandboxId, config: other }),
    is(status.INVALID_ARGUMENT, /its user namespace differs from its pod/),
  );
  const same = containerOf({ mode: NamespaceMode.POD, uids: ids, gids: ids });
  await runtime.createContainer({ podSandboxId, config: same });
  const mounts = [{ containerPath: '/data', hostPath: node.directory }];
  await runtime.createContainer({ podSandboxId, config: { ...same, metadata: { name: 'other' }, mounts } });
  await runtime.removePodSandbox({ podSandboxId });

  const refused: [object, RegExp][] = [
    [{ mode: NamespaceMode.POD, uids: ids }, /gids of its user namespace have no mapping/],
    [{ mode: NamespaceMode.POD, uids: [...ids, ...ids], gids: ids }, /map the container id 0 twice/],
    [{ mode: NamespaceMode.POD, uids: [{ ...ids[0], containerId: 1 }], gids: ids }, /leave out the container id 0/],
    [{ mode: NamespaceMode.POD, uids: [{ ...ids[0], length: 0 }], gids: ids }, /length 0/],
    [{ mode: NamespaceMode.CONTAINER }, /must be POD or NODE, got mode 1/],
    [{ mode: NamespaceMode.TARGET }, /got mode 3/],
    [{ mode: NamespaceMode.NODE, uids: ids }, /ids must not be mapped with the node/],
  ];
  for (const [options, reason] of refused) {
    await assert.rejects(runtime.runPodSandbox({ config: withUsers(options) }), is(status.INVALID_ARGUMENT, reason));
  }
  const plain = await runtime.runPodSandbox({ config: withUsers({ mode: NamespaceMode.NODE }) });
  assert.equal(parts.guest.calls.find(({ method }) => method === 'configure')?.params['userNamespace'], undefined);
  await runtime.removePodSandbox({ podSandboxId: plain.podSandboxId });
});

test('runPodSandbox() enables SCTP only for pods with an SCTP port, on the host or not', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const port = { containerPort: 9000, hostPort: 0, hostIp: '' };
  for (const [protocols, sctp] of [
    [[Protocol.TCP, Protocol.SCTP], true],
    [[Protocol.TCP, Protocol.UDP], undefined],
  ] as const) {
    const portMappings = protocols.map((protocol) => ({ ...port, protocol }));
    const { podSandboxId } = await runtime.runPodSandbox({ config: { ...podConfig, portMappings } });
    const configured = parts.guest.calls.findLast(({ method }) => method === 'configure');
    assert.equal(configured?.params['sctp'], sctp);
    await runtime.removePodSandbox({ podSandboxId });
  }
});
