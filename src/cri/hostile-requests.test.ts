import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import * as fc from 'fast-check';
import { connectTestClient } from './testing/grpc-client.ts';
import {
  CreateContainerRequestSchema,
  ImageService,
  RunPodSandboxRequestSchema,
  RuntimeService,
} from './schema/api_pb.ts';
import { containerConfig, openFakeNode, podConfig } from './testing/fake-node.ts';
import { propertyRuns } from '../../test/property-runs.ts';

const unary = [RuntimeService, ImageService].flatMap((service) =>
  service.methods.filter(({ methodKind }) => methodKind === 'unary').map(({ name }) => `/${service.typeName}/${name}`),
);
const ok = 0;
/** Status codes for a client's own mistakes, which exclude internal errors. */
const telling = new Set<number>([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
  status.RESOURCE_EXHAUSTED,
  status.UNIMPLEMENTED,
]);

/** Sends raw bytes and returns the status code; OK is 0. */
function sender(socketPath: string) {
  const client = connectTestClient(socketPath);
  return {
    send: (path: string, bytes: Uint8Array) =>
      client.raw(path, bytes).then(
        () => ok,
        (error: unknown) => (error as { code: number }).code,
      ),
    [Symbol.dispose]: () => client[Symbol.dispose](),
  };
}

test('random bytes cause no internal error', async () => {
  await using node = await openFakeNode();
  using client = sender(join(node.directory, 'cri.sock'));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...unary), fc.uint8Array({ maxLength: 200 }), async (path, bytes) => {
      const code = await client.send(path, bytes);
      assert.ok(code === ok || telling.has(code), `${path} answered ${code}`);
    }),
    { numRuns: propertyRuns(400) },
  );
  assert.equal((await node.runtime.version()).runtimeName, 'podvm');
});

test('corrupted requests cause no internal error, and leave nothing', async () => {
  await using node = await openFakeNode();
  using client = sender(join(node.directory, 'cri.sock'));
  const { podSandboxId } = await node.runtime.runPodSandbox({ config: podConfig });
  const security = {
    runAsUser: { value: 1000n },
    capabilities: { addCapabilities: ['NET_ADMIN'] },
    maskedPaths: ['/x'],
  };
  const config = {
    ...containerConfig,
    linux: { securityContext: security, resources: { memoryLimitInBytes: 2n ** 26n } },
  };
  const container = toBinary(
    CreateContainerRequestSchema,
    create(CreateContainerRequestSchema, { podSandboxId, config, sandboxConfig: podConfig }),
  );
  const pod = toBinary(RunPodSandboxRequestSchema, create(RunPodSandboxRequestSchema, { config: podConfig }));
  const requests = [
    ['/runtime.v1.RuntimeService/CreateContainer', container],
    ['/runtime.v1.RuntimeService/RunPodSandbox', pod],
  ] as const;
  const changes = fc.array(fc.tuple(fc.nat(500), fc.nat(255)), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...requests), changes, async ([path, good], made) => {
      const bytes = Uint8Array.from(good);
      for (const [at, value] of made) bytes[at % bytes.length] = value;
      const code = await client.send(path, bytes);
      assert.ok(code === ok || telling.has(code), `${path} answered ${code}`);
      const { items } = await node.runtime.listPodSandbox();
      for (const { id } of items) if (id !== podSandboxId) await node.runtime.removePodSandbox({ podSandboxId: id });
    }),
    { numRuns: propertyRuns(300) },
  );
});
