import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import * as fc from 'fast-check';
import { containerConfig, openFakeNode, podConfig } from './testing/fake-node.ts';
import { anyUnicode } from '../../test/any-unicode.ts';
import { propertyRuns } from '../../test/property-runs.ts';

/** Words that only host and agent exchange. */
const wireWords =
  /invalid parameters for the agent|Expected .* but received|Invalid (type|length|value|format)|in call /;

const mostly = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 20, arbitrary: usual }, { weight: 1, arbitrary: odd });
const some = <T>(item: fc.Arbitrary<T>, most = 3) => fc.array(item, { maxLength: most });
const long = fc.constantFrom(300, 5000, 140_000).map((count) => 'x'.repeat(count));
const anyText = fc.oneof(anyUnicode(), long);
const text = mostly(fc.constantFrom('a', 'a b', 'ü'), fc.oneof(fc.constant(''), anyText));
const word = mostly(fc.constantFrom('', 'a', '10.0.0.1', 'a.b'), anyText);
const path = mostly(
  fc.constantFrom('/', '/etc', '/etc/', '//etc/hosts', '/dev', '/a/./b', '/a/..'),
  fc.oneof(
    anyText,
    anyText.map((rest) => `/${rest}`),
  ),
);
const int64 = mostly(
  fc.constantFrom(0n, 2n ** 24n, 2n ** 40n, 2n ** 53n, 2n ** 63n - 1n),
  fc.oneof(fc.constantFrom(1n, -1n), fc.bigInt({ min: 0n, max: 2n ** 40n })),
);
const ids = mostly(some(fc.constantFrom(0n, 1000n, 2n ** 32n - 2n)), fc.constant(Array<bigint>(5000).fill(7n)));

const resources = fc.record(
  {
    memoryLimitInBytes: int64,
    cpuQuota: int64,
    cpuPeriod: int64,
    cpuShares: int64,
    oomScoreAdj: mostly(fc.constantFrom(0n, 1000n), fc.constant(2000n)),
  },
  { requiredKeys: [] },
);
const pod = fc.record({
  hostname: word,
  dnsConfig: fc.record({ servers: some(word), searches: some(word), options: some(word) }, { requiredKeys: [] }),
  linux: fc.record(
    {
      sysctls: fc.dictionary(mostly(fc.constant('net.core.somaxconn'), anyText), text, { maxKeys: 2 }),
      resources,
      overhead: resources,
    },
    { requiredKeys: [] },
  ),
});
const container = fc.record(
  {
    command: some(text),
    args: some(text),
    workingDir: path,
    envs: some(
      fc.record({
        key: word,
        value: fc.oneof(
          text.map((it) => Buffer.from(it)),
          fc.uint8Array({ maxLength: 3 }),
        ),
      }),
    ),
    annotations: fc.constantFrom({}, { 'io.kubernetes.container.terminationMessagePath': 'log' }),
    mounts: mostly(
      some(fc.record({ containerPath: fc.oneof(path, fc.constant('log')), hostPath: fc.constant('/etc/hostname') }), 1),
      fc.constant(Array.from({ length: 5000 }, (_, at) => ({ containerPath: `/m${at}`, hostPath: '/etc/hostname' }))),
    ),
    tty: fc.boolean(),
    stdin: fc.boolean(),
    linux: fc.record(
      {
        resources,
        securityContext: fc.record(
          {
            runAsUser: mostly(
              fc.constantFrom<{ value: bigint }>({ value: 0n }, { value: 5n }),
              fc.constant({ value: -1n }),
            ),
            runAsUsername: word,
            supplementalGroups: ids,
            maskedPaths: some(path),
            readonlyPaths: some(path),
          },
          { requiredKeys: [] },
        ),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: [] },
);

const runs = propertyRuns(150);

test('no config makes internal messages of host and agent reach a client', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const made = { pods: 0, containers: 0, execs: 0 };
  const told = async <T>(call: Promise<T>): Promise<T | undefined> =>
    await call.catch((error: unknown) => {
      const { code, message } = error as { code: number; message: string }; // SAFE: the client rejects with these
      assert.notEqual(code, status.INTERNAL, message);
      assert.doesNotMatch(message, wireWords);
      return undefined;
    });
  await fc.assert(
    fc.asyncProperty(pod, container, some(text), resources, async (podMore, containerMore, cmd, update) => {
      const sandbox = await told(runtime.runPodSandbox({ config: { ...podConfig, ...podMore } }));
      const { podSandboxId } = sandbox ?? (await runtime.runPodSandbox({ config: podConfig }));
      made.pods += sandbox === undefined ? 0 : 1;
      await told(runtime.updatePodSandboxResources({ podSandboxId, resources: update }));
      const config = { ...containerConfig, ...containerMore };
      const { containerId } = (await told(runtime.createContainer({ podSandboxId, config }))) ?? {};
      if (containerId !== undefined) {
        made.containers += 1;
        await told(runtime.startContainer({ containerId }));
        await told(runtime.updateContainerResources({ containerId, linux: update }));
        made.execs += (await told(runtime.exec({ containerId, cmd, stdout: true }))) === undefined ? 0 : 1;
        parts.guest.answers.set('signalContainer', () => node.exit(containerId, 0));
      }
      await runtime.removePodSandbox({ podSandboxId });
    }),
    { numRuns: runs },
  );
  for (const [what, count] of Object.entries(made)) assert.ok(count >= runs / 15, `only ${count} ${what}`);
});
