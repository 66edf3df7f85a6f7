import { again, codeOf, ready, type ChildExit, type Engine } from '../engine.ts';
import { takeEngine } from '../native.ts';

/** Runs on the real engine and returns its result; the directory is its own, and empty. */
export type Scenario = (directory: string) => unknown;

/** The agent's calls, and those of `scenario-calls.c`. */
interface ScenarioEngine extends Engine {
  connectUnix(path: string): number;
  /** A new pseudo-terminal: both ends; `master` is non-blocking. */
  openPty(): { readonly master: number; readonly slave: number };
}

export const engine: ScenarioEngine = takeEngine() as ScenarioEngine; // SAFE: scenarios are built with these calls
/** Errors that reached `onError`. */
export const errors: string[] = [];
engine.onError((error) => errors.push(error instanceof Error ? `${error.name}: ${error.message}` : String(error)));

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    engine.setTimer(ms, resolve);
  });

/** Waits until it holds; the scenario has a deadline. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

export const attempt = (call: () => unknown): string => {
  try {
    call();
    return 'done';
  } catch (error) {
    return codeOf(error) ?? (error instanceof Error ? error.name : 'thrown');
  }
};

/** Waits until `count` children have ended. */
export const exits = (count: number): Promise<ChildExit[]> =>
  new Promise((resolve) => {
    const seen: ChildExit[] = [];
    engine.onExit((exit) => {
      seen.push(exit);
      if (seen.length === count) resolve(seen);
    });
  });

export const shell = (script: string, fds: readonly number[] = [-1, -1, 2]): number =>
  engine.spawn({ argv: ['/bin/sh', '-c', script], env: ['PATH=/usr/bin:/bin'], fds });

/** Reads a descriptor to its end, one buffer per turn, and closes it. Returns the text. */
export const drain = (fd: number): Promise<string> =>
  new Promise((resolve) => {
    const buffer = new Uint8Array(16 * 1024);
    let text = '';
    engine.watch(fd, ready.readable, () => {
      const bytes = engine.read(fd, buffer);
      if (bytes === again) return;
      if (bytes > 0) text += engine.decodeUtf8(buffer, 0, bytes);
      else {
        engine.close(fd);
        resolve(text);
      }
    });
  });
