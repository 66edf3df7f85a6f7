/**
 * Measures the processor time of this thread, in `ms`. Tests bound work by it, and not by the time that passes, in which a
 * busy host runs other programs. Returns the time used since the call.
 */
export function measureWork(): () => number {
  const before = process.threadCpuUsage();
  return () => {
    const { user, system } = process.threadCpuUsage(before);
    return (user + system) / 1000;
  };
}

export interface TurnWatch extends Disposable {
  /** The longest work of this thread so far in which it ran no timer and so answered no one, in `ms`. */
  longestMs(): number;
}

/** Watches how long this thread's event loop is held up. */
export function watchTurns(): TurnWatch {
  let longest = 0;
  let work = measureWork();
  const look = () => {
    longest = Math.max(longest, work());
    work = measureWork();
  };
  const timer = setInterval(look, 10);
  return {
    longestMs() {
      look();
      return longest;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
