/**
 * Runs steps concurrently. When one fails, the others are aborted and awaited, and the first failure is thrown, so that
 * no step finishes afterwards.
 */
export async function together<T extends readonly unknown[]>(
  signal: AbortSignal,
  steps: { readonly [K in keyof T]: (signal: AbortSignal) => Promise<T[K]> },
): Promise<T> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  let firstFailure: { readonly error: unknown } | undefined;
  const results = await Promise.all(
    steps.map(async (step) => {
      try {
        return await step(both);
      } catch (error) {
        firstFailure ??= { error };
        stop.abort(error);
        return undefined;
      }
    }),
  );
  if (firstFailure !== undefined) throw firstFailure.error;
  return results as unknown as T; // SAFE: no step failed, so each result is its step's
}
