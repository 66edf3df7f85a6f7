import type { Engine } from './engine.ts';

/** Takes the native module from the global object, where nobody else finds it then. Once. */
export function takeEngine(): Engine {
  const holder: { podvmEngine?: Engine } = globalThis as object; // SAFE: engine.c sets it before any of our code runs
  const engine = holder.podvmEngine;
  delete holder.podvmEngine;
  if (engine === undefined) throw new TypeError('Cannot take the engine: it is not there, or taken');
  return engine;
}
