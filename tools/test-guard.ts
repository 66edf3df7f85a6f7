import { afterEach } from 'node:test';

/**
 * Preloaded where files of tests share a process. Fails a test that leaves this process changed for the next one, and
 * undoes the change, so that only that test fails.
 */
const globalsNow = (): Record<string, PropertyDescriptor> => ({ ...Object.getOwnPropertyDescriptors(globalThis) });
const globals = globalsNow();
const environment = { ...process.env };
const directory = process.cwd();
const listeners = new Map(process.eventNames().map((event) => [event, process.listeners(event as 'exit')]));

/** Names of entries that differ between the two. */
function differences<T>(now: Record<string, T>, before: Record<string, T>, isEqual: (now?: T, before?: T) => boolean) {
  const names = new Set([...Object.keys(now), ...Object.keys(before)]);
  return [...names].filter((name) => !isEqual(now[name], before[name]));
}

/** Node replaces accessors of its own by values on their first use. */
const isSameGlobal = (now?: PropertyDescriptor, before?: PropertyDescriptor) =>
  before !== undefined && (!('value' in before) || Object.is(now?.value, before.value));

/** Undoes the changes of a test, and returns their names. */
function undoChanges(): string[] {
  const changed: string[] = [];
  for (const name of differences(process.env, environment, Object.is)) {
    changed.push(`the environment variable ${name}`);
    if (environment[name] === undefined) delete process.env[name];
    else process.env[name] = environment[name];
  }
  if (process.cwd() !== directory) {
    changed.push('the working directory');
    process.chdir(directory);
  }
  if (process.exitCode !== undefined) {
    changed.push('the exit code');
    process.exitCode = undefined;
  }
  for (const name of differences(globalsNow(), globals, isSameGlobal)) {
    changed.push(`the global ${name}`);
    if (globals[name] === undefined) Reflect.deleteProperty(globalThis, name);
    else Object.defineProperty(globalThis, name, globals[name]);
  }
  for (const event of process.eventNames()) {
    const before = listeners.get(event) ?? [];
    const added = process.listeners(event as 'exit').filter((listener) => !before.includes(listener));
    if (added.length > 0) changed.push(`listeners of the process's event ${String(event)}`);
    for (const listener of added) process.off(event, listener);
  }
  return changed;
}

afterEach(() => {
  const changed = undoChanges();
  if (changed.length > 0) throw new Error(`The test changed its process for the next one: ${changed.join(', ')}`);
});
