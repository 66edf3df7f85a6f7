import assert from 'node:assert/strict';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { describeExecs } from '#sandbox/testing/exec.conformance.ts';
import { describeSandboxes } from '#sandbox/testing/sandbox.conformance.ts';
import { createFakeClock } from './fake-clock.ts';
import type { FakeBehaviour } from './fake-container.ts';
import { createFakeSandboxes } from './fake-sandbox.ts';

describeSandboxes('fake', async () => {
  const behaviour: FakeBehaviour = { onTerm: () => {}, onExec: () => 'hang' };
  const names = ['exits-0', 'exits-7', 'twice', 'runs', 'graceless', 'created', 'execs', 'output', 'exited', 'late'];
  const behaviours = Object.fromEntries(names.map((name) => [name, behaviour]));
  const sandboxes = createFakeSandboxes(createFakeClock(), { behaviours });
  return {
    sandboxes,
    sandboxSpec,
    containerSpec,
    exit: async ({ status }, exitCode) => {
      assert.equal(sandboxes.current(status.name).status.id, status.id);
      sandboxes.current(status.name).exit(exitCode);
    },
    crash: async () => sandboxes.crash('the VMM was killed'),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
});

describeExecs('fake', async () => {
  const signal = new AbortController().signal;
  const sandboxes = createFakeSandboxes(createFakeClock(), { behaviours: { main: { onExec: () => 'hang' } } });
  const container = await (await sandboxes.run(sandboxSpec, signal)).createContainer(containerSpec, signal);
  await container.start(signal);
  return { container, [Symbol.asyncDispose]: () => Promise.resolve() };
});
