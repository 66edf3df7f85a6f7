import type { Engine } from './engine.ts';

/** Takes the native module from the global object, so that no other code finds it there. Once. `T`: the build's calls. */
export function takeEngine<T extends object = Engine>(): T {
  const holder: { podvmEngine?: T } = globalThis as object; // SAFE: engine.c sets it before any of our code runs
  const engine = holder.podvmEngine;
  delete holder.podvmEngine;
  if (engine === undefined) throw new TypeError('Cannot take the engine: it is not there, or taken');
  return engine;
}
