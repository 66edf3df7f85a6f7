/**
 * Globals that the engine's JavaScript lacks and shared code (`base/`, `wire/`) expects. Import this file first. The
 * symbols are those that esbuild's lowered `using` looks for.
 */
const symbols: { dispose?: symbol; asyncDispose?: symbol } = Symbol as object; // SAFE: both are absent in this engine

symbols.dispose ??= Symbol.for('Symbol.dispose');
symbols.asyncDispose ??= Symbol.for('Symbol.asyncDispose');
