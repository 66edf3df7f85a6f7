import { PodvmError } from '#base/errors.ts';

/** Admits a limited number of callers at a time. Others wait in order. */
export interface Gate {
  /** Waits for admission, which lasts until disposal. Errors: `cancelled`. */
  enter(signal: AbortSignal): Promise<Disposable>;
  /** Callers that are admitted. */
  readonly inside: number;
}

export function createGate(limit: number): Gate {
  const waiting: (() => void)[] = [];
  let inside = 0;
  const leave = () => {
    const next = waiting.shift();
    if (next === undefined) inside -= 1;
    else next(); // takes over the place
  };
  return {
    get inside() {
      return inside;
    },
    async enter(signal) {
      if (inside < limit) inside += 1;
      else await turn(waiting, signal);
      let isInside = true;
      return {
        [Symbol.dispose]: () => {
          if (isInside) leave();
          isInside = false;
        },
      };
    },
  };
}

function turn(waiting: (() => void)[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const come = () => {
      signal.removeEventListener('abort', giveUp);
      resolve();
    };
    const giveUp = () => {
      waiting.splice(waiting.indexOf(come), 1);
      reject(new PodvmError('cancelled', 'Cannot wait for a turn: cancelled'));
    };
    signal.addEventListener('abort', giveUp, { once: true });
    waiting.push(come);
    if (signal.aborted) giveUp();
  });
}
