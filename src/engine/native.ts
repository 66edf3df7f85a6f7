/**
 * Takes the native module from the global object, once, so that no other code finds it there. It has the calls of its
 * program: `Engine` for the agent, `FileServerEngine` for the file server.
 */
export function takeEngine(): object {
  const holder: { podvmEngine?: object } = globalThis as object; // SAFE: engine.c sets it before any of our code runs
  const engine = holder.podvmEngine;
  delete holder.podvmEngine;
  if (engine === undefined) throw new TypeError('Cannot take the engine: it is not there, or taken');
  return engine;
}
