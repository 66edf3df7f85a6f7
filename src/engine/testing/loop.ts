import { open } from '../constants.ts';
import { again, ready } from '../engine.ts';
import { attempt, engine, errors, exits, shell, sleep, until, type Scenario } from './support.ts';

export const loopScenarios: Record<string, Scenario> = {
  async backPressure() {
    const pipe = engine.pipe('both');
    const chunk = new Uint8Array(64 * 1024);
    let written = 0;
    let result = 0;
    while (result !== again) {
      result = engine.write(pipe.write, chunk);
      if (result > 0) written += result;
    }
    let read = 0;
    await new Promise<void>((resolve) => {
      engine.watch(pipe.read, ready.readable, () => {
        read += Math.max(0, engine.read(pipe.read, chunk));
        if (read === written) resolve();
      });
    });
    const empty = engine.read(pipe.read, chunk);
    engine.close(pipe.read);
    return { written, read, empty, noReader: attempt(() => engine.write(pipe.write, chunk)) };
  },

  /** One descriptor that is always ready must not keep another from its turn. */
  async fairness() {
    const [busy, calm] = [engine.pipe('both'), engine.pipe('both')];
    let busyCalls = 0;
    engine.write(busy.write, new Uint8Array(1));
    engine.watch(busy.read, ready.readable, () => (busyCalls += 1));
    let callsBefore = -1;
    const told = new Promise<void>((resolve) => {
      engine.watch(calm.read, ready.readable, () => resolve());
    });
    const writeOnceBusy = () => {
      if (busyCalls <= 10) {
        engine.setTimer(20, writeOnceBusy);
        return;
      }
      callsBefore = busyCalls;
      engine.write(calm.write, new Uint8Array(1));
    };
    engine.setTimer(20, writeOnceBusy);
    await told;
    const between = busyCalls - callsBefore;
    engine.unwatch(busy.read);
    return { busyRan: callsBefore > 10, between: between <= 2 };
  },

  async staleEvents() {
    const [first, second] = [engine.pipe('both'), engine.pipe('both')];
    let calls = 0;
    const closeOther = (own: number, other: number) => () => {
      calls += 1;
      engine.unwatch(own);
      engine.close(other);
      const reused = engine.open('/dev/null', open.readOnly); // gets the other's number
      if (reused !== other) errors.push('the number was not used again');
    };
    engine.watch(first.read, ready.readable, closeOther(first.read, second.read));
    engine.watch(second.read, ready.readable, closeOther(second.read, first.read));
    engine.write(first.write, new Uint8Array(1));
    engine.write(second.write, new Uint8Array(1));
    await until(() => calls > 0);
    await sleep(20); // time for a second call
    return { calls, errors };
  },

  /** A pipe whose writer comes and goes, as the host of a port does. */
  async changes(directory) {
    const path = `${directory}/fifo`;
    const made = exits(1);
    shell(`mkfifo ${path}`);
    await made;
    const reader = engine.open(path, open.readOnly | open.nonBlock);
    engine.close(engine.open(path, open.writeOnly | open.nonBlock));
    const told: number[] = [];
    engine.watch(reader, ready.readable | ready.changed, (events) => told.push(events));
    await until(() => told.length > 0);
    await sleep(20); // time for another event
    const hungUp = [...told];
    const writer = engine.open(path, open.writeOnly | open.nonBlock);
    engine.write(writer, new Uint8Array(1));
    await until(() => told.length > hungUp.length);
    await sleep(20);
    const written = told.slice(hungUp.length);
    return { hungUp, written };
  },

  async errorsSurvived() {
    const pipe = engine.pipe('both');
    engine.write(pipe.write, new Uint8Array(1));
    let calls = 0;
    engine.watch(pipe.read, ready.readable, () => {
      calls += 1;
      if (calls === 3) engine.unwatch(pipe.read);
      throw new Error(`handler ${calls}`);
    });
    engine.setTimer(1, () => {
      throw new Error('timer');
    });
    void Promise.reject(new Error('rejection'));
    Promise.reject(new Error('handled')).catch(() => {});
    engine.onExit(() => {
      throw new Error('exit');
    });
    shell('exit 0');
    await until(() => errors.length >= 6);
    return errors.toSorted();
  },

  async outOfMemory() {
    const hoard: unknown[] = [];
    engine.setTimer(1, () => {
      for (;;) hoard.push(new Uint8Array(64 * 1024));
    });
    await sleep(30);
    hoard.length = 0;
    return { errors, still: [1, 2].map((value) => value * 2) };
  },

  async watchdog() {
    let spins = 0;
    engine.setWatchdog(2);
    engine.setTimer(1, () => {
      for (;;) {
        try {
          for (;;) spins += 1; // a catch in the script must not stop it
        } catch {}
      }
    });
    await sleep(10);
    await sleep(10);
    return spins > 0 ? errors : [];
  },

  /** A guest that gets no processor sees its clock jump in the middle of a handler. */
  async slowHandler() {
    engine.setWatchdog(50);
    const pipe = engine.pipe('write');
    shell('sleep 0.2', [-1, pipe.write, 2]);
    engine.close(pipe.write);
    const turns = await new Promise<number>((resolve) => {
      engine.onError((error) => {
        errors.push(String(error));
        resolve(0);
      });
      engine.setTimer(1, () => {
        engine.read(pipe.read, new Uint8Array(1));
        let done = 0;
        while (done < 100_000) done += 1;
        resolve(done);
      });
    });
    return { turns, errors };
  },

  /** Nothing catches the interruption of an asynchronous function, but a handler of its promise gets it. */
  async interruptedCall() {
    engine.setWatchdog(2);
    const got: string[] = [];
    const spin = async (isLate: boolean) => {
      try {
        if (isLate) await sleep(1);
        for (;;);
      } catch {
        got.push('caught');
      } finally {
        got.push('finished');
      }
    };
    const call = async (isLate: boolean) => {
      try {
        await spin(isLate);
      } catch {
        got.push('caught by the caller');
      }
    };
    for (const isLate of [false, true]) {
      await new Promise<void>((resolve) => {
        void call(isLate)
          .catch((error) => void got.push(String(error)))
          .finally(resolve);
      });
    }
    return { got, errors };
  },

  async deepRecursion() {
    const recurse = (depth: number): number => recurse(depth + 1) + 1;
    engine.setTimer(1, () => {
      recurse(0);
    });
    await sleep(20);
    return errors;
  },

  async timers() {
    const order: number[] = [];
    const cleared = engine.setTimer(5, () => order.push(-1));
    for (const delay of [30, 10, 20, 0]) engine.setTimer(delay, () => order.push(delay));
    engine.clearTimer(cleared);
    engine.clearTimer(12_345);
    await sleep(60);
    return {
      order,
      negative: attempt(() => engine.setTimer(-1, () => {})),
      notANumber: attempt(() => engine.setTimer(NaN, () => {})),
    };
  },
};
