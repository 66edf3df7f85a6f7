import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decide, finishOf, isInitialized } from './decide.ts';
import {
  applyEvent,
  backOff,
  initialState,
  runMoves,
  type ContainerPlan,
  type ContainerRun,
  type PodPlan,
  type PodState,
  type StateEvent,
} from './pod-state.ts';

const restart = fc.constantFrom('Always' as const, 'OnFailure' as const, 'Never' as const);
const planArbitrary: fc.Arbitrary<PodPlan> = fc
  .record({
    init: fc.array(fc.constantFrom('init' as const, 'sidecar' as const), { maxLength: 3 }),
    mains: fc.integer({ min: 1, max: 3 }),
    policy: restart,
    hasProbe: fc.boolean(),
    deadline: fc.option(fc.integer({ min: 1, max: 2_000_000 }), { nil: undefined }),
  })
  .map(({ init, mains, policy, hasProbe, deadline }) => {
    const policyOf = { init: policy === 'Never' ? 'Never' : 'OnFailure', sidecar: 'Always', main: policy } as const;
    const kinds = [...init, ...Array.from({ length: mains }, () => 'main' as const)];
    const containers = kinds.map((kind, index): ContainerPlan => {
      return { name: `c${index}`, kind, restart: policyOf[kind], hasReadinessProbe: hasProbe };
    });
    return { containers, graceMs: 30_000, ...(deadline === undefined ? {} : { activeDeadlineMs: deadline }) };
  });

/** One step of the world: a container, an event and a delay. */
interface Step {
  readonly what: 'progress' | 'exit' | 'fail' | 'createFails' | 'unhealthy' | 'terminate' | 'kill' | 'wait';
  readonly who: number;
  readonly ms: number;
}
const stepsArbitrary: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    what: fc.constantFrom(
      ...(['progress', 'progress', 'progress', 'exit', 'fail', 'createFails', 'unhealthy', 'wait', 'wait'] as const),
      ...(['terminate', 'kill'] as const),
    ),
    who: fc.nat({ max: 5 }),
    ms: fc.nat({ max: 700_000 }),
  }),
  { maxLength: 60 },
);

/** A world in which containers follow the steps. It checks every move. */
class World {
  state: PodState;
  nowMs = 0;
  hasFinished = false;
  readonly starts = new Map<string, number[]>();

  constructor(plan: PodPlan) {
    this.state = initialState(plan, 0, 0);
    this.tell({ kind: 'sandboxReady' });
    this.act();
  }

  tell(event: StateEvent): void {
    const before = this.state;
    this.state = applyEvent(before, event);
    for (const [index, container] of this.state.containers.entries())
      this.checkMove(before.containers[index], container);
  }

  checkMove(before: ContainerRun | undefined, after: ContainerRun): void {
    assert.ok(before !== undefined);
    const from = before.run.at;
    const moves: readonly string[] = runMoves[from];
    assert.ok(from === after.run.at || moves.includes(after.run.at), `${from} to ${after.run.at}`);
    assert.ok(after.attempt === before.attempt || after.attempt === before.attempt + 1);
    if (after.attempt > before.attempt && after.run.at === 'waiting') {
      const delay = after.run.notBeforeMs - (after.last?.finishedAtMs ?? 0);
      assert.ok(delay >= 0 && delay <= backOff.maxMs);
      assert.ok(after.backOffMs >= Math.min(backOff.maxMs, delay * 2), 'the back-off never shrinks');
    }
  }

  /** Executes decisions until none is left. */
  act(): void {
    for (let round = 0; round < 20; round += 1) {
      const { actions } = decide(this.state, this.nowMs);
      if (actions.length === 0 || this.hasFinished) return;
      let hasDone = false;
      for (const action of actions) {
        if (action.kind === 'abortStart') continue;
        hasDone = true;
        if (action.kind === 'start') {
          this.checkStart(action.name, action.attempt);
          this.tell({ kind: 'startBegun', name: action.name });
        } else if (action.kind === 'stop') {
          this.tell({ kind: 'stopBegun', name: action.name, why: action.why, isKilled: false });
        } else if (action.kind === 'kill') {
          this.tell({ kind: 'stopBegun', name: action.name, why: 'killed', isKilled: true });
        } else if (action.kind === 'end') {
          this.tell(action);
        } else {
          this.hasFinished = true;
          return;
        }
      }
      if (!hasDone) return;
    }
    assert.fail('decisions without end');
  }

  checkStart(name: string, attempt: number): void {
    const container = this.of(name);
    assert.equal(container.run.at, 'waiting', 'never two instances of one container');
    assert.equal(this.state.ending, undefined, 'nothing starts in a pod that ends');
    assert.equal(container.attempt, attempt);
    if (container.plan.kind === 'main') assert.ok(isInitialized(this.state), 'nothing runs before init has ended');
    const earlier = this.state.containers.slice(0, this.state.containers.indexOf(container));
    if (container.plan.kind === 'init') {
      assert.ok(earlier.every(({ plan, run, hadStarted }) => (plan.kind === 'init' ? run.at === 'ended' : hadStarted)));
    }
    const attempts = this.starts.get(name) ?? [];
    assert.ok(attempts.length === 0 || attempt >= (attempts.at(-1) ?? 0));
    this.starts.set(name, [...attempts, attempt]);
  }

  of(name: string): ContainerRun {
    const found = this.state.containers.find(({ plan }) => plan.name === name);
    assert.ok(found !== undefined);
    return found;
  }

  step({ what, who, ms }: Step): void {
    this.nowMs += what === 'wait' ? ms : 1;
    const container = this.state.containers[who % this.state.containers.length];
    assert.ok(container !== undefined);
    const { name } = container.plan;
    const { at } = container.run;
    const nowMs = this.nowMs;
    const exit = (exitCode: number, reason: string) =>
      this.tell({ kind: 'exited', name, exit: { exitCode, reason, finishedAtMs: nowMs }, nowMs });
    if (what === 'terminate') this.tell({ kind: 'end', ending: { reason: 'Terminated', killAtMs: nowMs + 30_000 } });
    if (what === 'kill') this.tell({ kind: 'end', ending: { reason: 'Killed', killAtMs: nowMs } });
    if (what === 'progress' && at === 'starting') this.tell({ kind: 'running', name, startedAtMs: nowMs, nowMs });
    if (what === 'progress' && at === 'running') this.tell({ kind: 'started', name });
    if (what === 'unhealthy') this.tell({ kind: 'stopWanted', name, wish: { why: 'liveness', graceMs: 1000 } });
    if (what === 'createFails' && at === 'starting') {
      this.tell({ kind: 'createFailed', name, isTransient: ms % 5 > 0, reason: 'ErrImagePull', message: '', nowMs });
    }
    if (what === 'exit' && at !== 'waiting') exit(0, 'Completed');
    if (what === 'fail' && at !== 'waiting') exit(1, 'Error');
    this.act();
  }

  /** Ends all containers that are stopping. */
  drain(): void {
    this.tell({ kind: 'end', ending: { reason: 'Killed', killAtMs: this.nowMs } });
    for (let round = 0; round < 20 && !this.hasFinished; round += 1) {
      this.act();
      for (const { plan, run } of this.state.containers) {
        const exit = { exitCode: 137, reason: 'Error', finishedAtMs: this.nowMs };
        if (run.at === 'stopping' || run.at === 'starting')
          this.tell({ kind: 'exited', name: plan.name, exit, nowMs: this.nowMs });
      }
      this.act();
    }
  }
}

test('decide() keeps every rule of a pod for random container behaviour', () => {
  fc.assert(
    fc.property(planArbitrary, stepsArbitrary, (plan, steps) => {
      const world = new World(plan);
      for (const step of steps) {
        if (world.hasFinished) break;
        world.step(step);
        const { wakeAtMs } = decide(world.state, world.nowMs);
        assert.ok(wakeAtMs === undefined || wakeAtMs > world.nowMs || world.state.ending !== undefined);
      }
      world.drain();
      assert.ok(world.hasFinished, 'a pod that is killed ends');
      assert.ok(world.state.containers.every(({ run }) => run.at === 'ended'));
      for (const {
        plan: { name },
        attempt,
      } of world.state.containers) {
        const attempts = new Set(world.starts.get(name) ?? []);
        assert.ok(attempts.size <= attempt + 1, 'one restart is counted for every attempt');
      }
    }),
    { numRuns: 500 },
  );
});

test('decide() is deterministic', () => {
  fc.assert(
    fc.property(planArbitrary, stepsArbitrary, fc.nat(), (plan, steps, nowMs) => {
      const world = new World(plan);
      for (const step of steps) if (!world.hasFinished) world.step(step);
      assert.deepEqual(decide(world.state, nowMs), decide(world.state, nowMs));
    }),
    { numRuns: 50 },
  );
});

test('finishOf() is 0 only if every container that counts has exited with 0', () => {
  fc.assert(
    fc.property(planArbitrary, stepsArbitrary, (plan, steps) => {
      const world = new World(plan);
      for (const step of steps) if (!world.hasFinished) world.step(step);
      world.drain();
      const counted = world.state.containers.filter((container) => container.plan.kind !== 'sidecar');
      const { exitCode } = finishOf(world.state);
      if (exitCode === 0) assert.ok(counted.every(({ last }) => last?.exitCode === 0));
      else assert.ok(world.state.ending?.exitCode !== undefined || counted.some(({ last }) => last?.exitCode !== 0));
    }),
    { numRuns: 200 },
  );
});
