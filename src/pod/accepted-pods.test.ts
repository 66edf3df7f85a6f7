import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import * as v from 'valibot';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { createFakeParts } from '#sandbox/testing/fake-parts.ts';
import { defaultLimits } from '#sandbox/limits.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import { podSchema } from './schema/objects.ts';
import { startPod } from './start-pod.ts';
import { anyUnicode } from '../../test/any-unicode.ts';
import { propertyRuns } from '../../test/property-runs.ts';

/** Words that only host and agent exchange. */
const wireWords =
  /invalid parameters for the agent|Expected .* but received|Invalid (type|length|value|format)|in call /;

/** Generates mostly usual values: a pod with any odd value may be refused as a whole. */
const mostly = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 12, arbitrary: usual }, { weight: 1, arbitrary: odd });
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
const some = <T>(item: fc.Arbitrary<T>, most = 3) => fc.array(item, { maxLength: most });
const long = (piece: string, most: number) => fc.constantFrom(2, 300, most).map((count) => piece.repeat(count));
const anyText = fc.oneof(anyUnicode(), long('x', 140_000), long('ü$(A)', 5000));
const text = mostly(fc.constantFrom('', 'a', 'a b', 'ü', '$(A)', '$$'), anyText);
const path = mostly(
  fc.constantFrom('/', '/etc', '/etc/', '//etc/hosts', '/dev', '/dev/shm', '/a/./b'),
  fc.oneof(
    long('/deep', 1000),
    anyText.map((rest) => `/${rest}`),
  ),
);
const inside = mostly(fc.constantFrom('a', 'a/b/', '$(A)', './x', '$(NONE)'), long('d/', 3000));
const quantity = fc.constantFrom('16Mi', '1Gi', '1Ei', '8Ei', '999999999999999999999', '1e18');
const cpu = fc.constantFrom('1', '1m', '0.5', '64', '1e18', '8Ei');
const id = fc.constantFrom(0, 1, 1000, 2 ** 31 - 1);
const amounts = fc.record({ cpu: maybe(cpu), memory: maybe(quantity), 'ephemeral-storage': maybe(quantity) });

const container = fc.record({
  name: fc.constant('main'),
  image: fc.constant('busybox'),
  command: maybe(some(text)),
  args: maybe(some(text)),
  workingDir: maybe(path),
  env: maybe(some(fc.record({ name: fc.constantFrom('A', 'B', 'a b'), value: maybe(text) }))),
  resources: maybe(fc.record({ limits: amounts })),
  volumeMounts: maybe(
    some(fc.record({ name: fc.constant('v'), mountPath: path, subPathExpr: maybe(inside), readOnly: fc.boolean() }), 2),
  ),
  terminationMessagePath: maybe(path),
  securityContext: maybe(fc.record({ runAsUser: maybe(id), runAsGroup: maybe(id), privileged: maybe(fc.boolean()) })),
  tty: maybe(fc.boolean()),
  stdin: maybe(fc.boolean()),
});

const alias = fc.record({
  ip: fc.constant('1.1.1.1'),
  hostnames: fc.constant(Array<string>(200).fill('h'.repeat(63))),
});
const sysctl = fc.record({ name: fc.constantFrom('net.core.somaxconn', 'kernel.sem', 'net/a'), value: text });
const spec = fc.record({
  restartPolicy: fc.constant('Never'),
  containers: container.map((only) => [only]),
  volumes: fc
    .record({ medium: maybe(fc.constantFrom('', 'Memory')), sizeLimit: maybe(quantity) })
    .map((emptyDir) => [{ name: 'v', emptyDir }]),
  hostname: maybe(fc.constantFrom('h', 'x'.repeat(63))),
  subdomain: maybe(fc.constantFrom('s', 'x'.repeat(63))),
  setHostnameAsFQDN: maybe(fc.boolean()),
  hostUsers: maybe(fc.boolean()),
  dnsConfig: maybe(fc.record({ searches: maybe(some(fc.constantFrom('lan', '.', 'x'.repeat(253)))) })),
  hostAliases: maybe(mostly(some(alias), fc.array(alias, { minLength: 100, maxLength: 256 }))),
  securityContext: maybe(
    fc.record({ fsGroup: maybe(id), supplementalGroups: maybe(some(id)), sysctls: maybe(some(sysctl, 1)) }),
  ),
});

const runs = propertyRuns(200);

test('no accepted pod makes internal messages of host and agent reach a user', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-accepted-'));
  const parts = createFakeParts(directory);
  const limits = { ...defaultLimits, drainTimeoutMs: 200 };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits }, new AbortController().signal);
  const config = { configMaps: [], secrets: [], network: 'cni', nodeName: 'n' } as const;
  let created = 0;
  parts.before = async (step) => {
    if (step !== 'call startContainer') return;
    created += 1;
    for (const { method, params } of parts.guest.calls) {
      const containerId = String(params['id']);
      if (method !== 'createContainer') continue;
      const { stdout, stderr } = params['stdio'] as { stdout: number; stderr: number }; // SAFE: the wire's type
      for (const stream of [stdout, stderr]) if (stream > 0) parts.guest.stream(stream).end();
      parts.guest.tell({ kind: 'exited', containerId, exitCode: 0, oomKilled: false, finishedAtMs: 0 });
    }
  };
  const whole = spec.map(
    (given) =>
      JSON.parse(JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'web' }, spec: given })) as unknown,
  );
  await fc.assert(
    fc.asyncProperty(whole, async (given) => {
      const accepted = v.safeParse(podSchema, given);
      if (!accepted.success) return;
      const running = startPod(
        accepted.output,
        config,
        { sandboxes, log: silentLog, clock: systemClock },
        new AbortController().signal,
      );
      await running.finished;
      const said = [running.status.message ?? '', ...running.events.map(({ message }) => message)];
      for (const message of said) assert.doesNotMatch(message, wireWords);
      await running.remove();
    }),
    { numRuns: runs },
  );
  assert.ok(created > runs / 10, `only ${created} containers were started`);
  await sandboxes[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});
