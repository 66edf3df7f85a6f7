import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilAborted } from '#host/until-aborted.ts';
import { Holdings } from '../state/holdings.ts';
import { createPhases } from '../state/phases.ts';
import { runSteps, stepOf, type Step, type Steps } from './run-steps.ts';

interface Made {
  readonly ground: number;
  readonly left: string;
  readonly right: string;
  readonly roof: string;
}
type Site = Record<string, never>;

const never = new AbortController().signal;
const step = stepOf<Made, Site>();

/** Two steps that need the ground, and a roof that needs both; their actions are recorded in `seen`. */
function house(vary: { readonly [Key in keyof Made]?: Partial<Step<Made, Site, Made[Key]>> } = {}) {
  const seen: string[] = [];
  const undone = (what: string) => () => void seen.push(`${what} undone`);
  const steps: Steps<Made, Site> = {
    ground: step({ name: 'ground laid', what: '', needs: [], run: async () => 1, undo: undone('ground') }),
    left: step({
      name: 'left built',
      what: '',
      needs: ['ground'],
      run: async ({ ground }) => `left on ${ground}`,
      undo: undone('left'),
    }),
    right: step({
      name: 'right built',
      what: '',
      needs: ['ground'],
      run: async ({ ground }) => `right on ${ground}`,
      undo: undone('right'),
    }),
    roof: step({
      name: 'roof set',
      what: '',
      needs: ['left', 'right'],
      run: async ({ left, right }) => `${left}, ${right}`,
      undo: undone('roof'),
    }),
  };
  const holdings = new Holdings();
  const phases = createPhases(() => process.hrtime.bigint());
  return {
    seen,
    holdings,
    names: () => phases.timeline().map(({ name }) => name),
    run: (done: Partial<Made> = {}, signal = never) =>
      runSteps(
        {
          ground: { ...steps.ground, ...vary.ground },
          left: { ...steps.left, ...vary.left },
          right: { ...steps.right, ...vary.right },
          roof: { ...steps.roof, ...vary.roof },
        },
        { site: {}, done, phases, holdings },
        signal,
      ),
  };
}

const untilStopped = async (signal: AbortSignal) => await untilAborted(new Promise<string>(() => {}), signal);

test('runSteps() passes each step what it needs, and returns all results', async () => {
  assert.deepEqual(await house().run(), {
    ground: 1,
    left: 'left on 1',
    right: 'right on 1',
    roof: 'left on 1, right on 1',
  });
});

test('runSteps() starts a step as soon as what it needs is available, concurrently with others', async () => {
  const [leftStarted, rightStarted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const { run } = house({
    left: {
      run: async () => {
        leftStarted.resolve();
        await rightStarted.promise; // never starts in a runner that goes row by row
        return 'left';
      },
    },
    right: {
      run: async () => {
        await leftStarted.promise;
        rightStarted.resolve();
        return 'right';
      },
    },
  });
  assert.equal((await run()).roof, 'left, right');
});

test('runSteps() records each step’s time under its name as it ends, except for steps that take no time', async () => {
  const rightDone = Promise.withResolvers<void>();
  const { run, names } = house({
    ground: { run: () => 1 },
    left: { run: async () => await rightDone.promise.then(() => 'left') },
    right: {
      run: async () => {
        setImmediate(rightDone.resolve);
        return 'right';
      },
    },
  });
  await run();
  assert.deepEqual(names(), ['right built', 'left built', 'roof set', 'total']);
});

test('runSteps() aborts the other steps when one fails, waits for them, and throws the first failure', async () => {
  const { run, seen } = house({
    left: {
      run: async (_made, _site, signal) => {
        await untilStopped(signal).catch(() => {});
        seen.push('left ended');
        throw new Error('left was stopped');
      },
    },
    right: { run: async () => await Promise.reject(new Error('right fell')) },
    roof: { run: () => assert.fail('the roof was set on nothing') },
  });
  await assert.rejects(run(), /right fell/);
  assert.deepEqual(seen, ['left ended']);
});

test('runSteps() also holds results that were finished after the failure', async () => {
  const { run, seen, holdings } = house({
    left: {
      run: async (_made, _site, signal) => {
        await untilStopped(signal).catch(() => {});
        return 'left, late';
      },
    },
    right: { run: async () => await Promise.reject(new Error('right fell')) },
  });
  await assert.rejects(run(), /right fell/);
  await holdings[Symbol.asyncDispose]();
  assert.deepEqual(seen, ['left undone', 'ground undone']);
});

for (const finishesLate of [false, true]) {
  test(`runSteps() throws the reason of the abort, ${finishesLate ? 'also if the last step succeeds' : 'and starts no further step'}`, async () => {
    const stop = new AbortController();
    const { run } = house({
      [finishesLate ? 'roof' : 'left']: {
        run: async () => {
          stop.abort(new Error('enough'));
          return 'done';
        },
      },
      ...(finishesLate ? {} : { roof: { run: () => assert.fail('the roof was set') } }),
    });
    await assert.rejects(run({}, stop.signal), /enough/);
  });
}

test('runSteps() undoes in reverse order of acquisition, independent of the order of the rows', async () => {
  const rightDone = Promise.withResolvers<void>();
  const { run, seen, holdings } = house({
    left: { run: async () => await rightDone.promise.then(() => 'left') },
    right: {
      run: async () => {
        setImmediate(rightDone.resolve);
        return 'right';
      },
    },
  });
  await run();
  await holdings[Symbol.asyncDispose]();
  assert.deepEqual(seen, ['roof undone', 'left undone', 'right undone', 'ground undone']);
});

test('runSteps() neither makes nor holds results that are given', async () => {
  const { run, names, seen, holdings } = house({ ground: { run: () => assert.fail('laid again') } });
  assert.equal((await run({ ground: 7, left: 'old left' })).roof, 'old left, right on 7');
  assert.deepEqual(names(), ['right built', 'roof set', 'total']);
  await holdings[Symbol.asyncDispose]();
  assert.deepEqual(seen, ['roof undone', 'right undone']);
});

for (const isDone of [false, true]) {
  test(`runSteps() fails when ${isDone ? 'a given result' : 'a result'} is lost, with the message of its row`, async () => {
    const loss = Promise.withResolvers<Error>();
    const { run } = house({
      ground: {
        lost: () => loss.promise,
        explain: async (error, ground, isLost) => new Error(`${ground}: ${isLost}`, { cause: error }),
      },
      left: {
        run: async (_made, _site, signal) => {
          loss.resolve(new Error('the ground gave way'));
          return await untilStopped(signal);
        },
      },
    });
    await assert.rejects(run(isDone ? { ground: 1 } : {}), (error) => {
      assert.ok(error instanceof Error);
      assert.equal(error.message, '1: true');
      assert.match(String(error.cause), /the ground gave way/);
      return true;
    });
  });
}

test('runSteps() asks only steps with a result for an explanation', async () => {
  const { run } = house({
    left: { run: async () => await Promise.reject(new Error('left fell')) },
    ground: { explain: async (error, _ground, isLost) => new Error(`explained (${isLost})`, { cause: error }) },
    roof: { explain: () => assert.fail('the roof was not set') },
  });
  await assert.rejects(run(), /explained \(false\)/);
});

test('runSteps() refuses a table in which a step needs a later one, before it runs a step', async () => {
  const { run } = house({
    ground: { run: () => assert.fail('started') },
    left: { needs: ['roof'] },
  });
  await assert.rejects(run(), /The step left needs roof, which no row above it makes/);
});
