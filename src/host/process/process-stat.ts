/** Unit of times in /proc/PID/stat and /proc/stat, the same on all architectures (proc(5)). */
export const ticksPerSecond = 100;

/** Parses the text of /proc/PID/stat. Returns a function that gives fields by their numbers in proc(5), from 3 on. */
export function statFields(text: string): (number: number) => string | undefined {
  // The second field is the program's name in parentheses, which may contain anything: fields are counted after it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (number) => fields[number - 3];
}

/** State, such as R or Z, and start time in clock ticks since boot; undefined for the text of a process that is gone. */
export function stateOf(text: string): { readonly state: string; readonly startTicks: string } | undefined {
  const field = statFields(text);
  const [state, startTicks] = [field(3), field(22)];
  return state === undefined || startTicks === undefined ? undefined : { state, startTicks };
}

/** Processor time of all threads since the process began, in seconds. */
export function cpuSecondsOf(field: ReturnType<typeof statFields>): number {
  return (Number(field(14) ?? 0) + Number(field(15) ?? 0)) / ticksPerSecond;
}
