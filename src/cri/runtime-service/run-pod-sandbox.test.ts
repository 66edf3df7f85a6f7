import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { silentLog } from '#host/log/log.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { KnownPods } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import { PodStarts } from '../pod-starts.ts';
import { ContainerEventType, RunPodSandboxRequestSchema } from '../schema/api_pb.ts';
import { podConfig } from '../testing/fake-node.ts';
import { runPodSandbox } from './run-pod-sandbox.ts';

test('a sandbox that ends while it is recorded is told to have started before', async () => {
  const told: ContainerEventType[] = [];
  const ended = { id: 'sb-1', warnings: [], ended: Promise.resolve() } as unknown as Sandbox; // SAFE: all that is read
  const pods = new KnownPods({
    save: () => new Promise((resolve) => void setImmediate(resolve)),
    remove: () => Promise.resolve(),
  });
  const parts = {
    sandboxes: { run: () => Promise.resolve(ended) },
    pods,
    starts: new PodStarts(pods, silentLog),
    events: { tell: (type: ContainerEventType) => void told.push(type) },
    log: silentLog,
  } as unknown as CriParts; // SAFE: all that the verb uses
  const request = create(RunPodSandboxRequestSchema, { config: podConfig });
  const { podSandboxId } = await runPodSandbox(parts, request, new AbortController().signal);
  assert.equal(podSandboxId, 'sb-1');
  const { CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT } = ContainerEventType;
  assert.deepEqual(told, [CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT]);
});
