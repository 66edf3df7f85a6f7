import { messageOf } from '#base/errors.ts';

/** The steps of a tour, each with its title. */
export type Steps<Tour> = readonly (readonly [what: string, walk: (tour: Tour) => Promise<void>])[];

/** Runs all steps, and prints the result of each. Errors: all steps that failed. */
export async function walkSteps<Tour>(steps: Steps<Tour>, tour: Tour, say: (text: string) => void): Promise<void> {
  const failures: unknown[] = [];
  for (const [what, walk] of steps) {
    const startedMs = performance.now();
    const failure = await walk(tour).then(
      () => undefined,
      (error: unknown) => new Error(what, { cause: error }),
    );
    say(`${failure === undefined ? 'ok' : 'FAILED'}: ${what} (${Math.round(performance.now() - startedMs)} ms)`);
    if (failure === undefined) continue;
    failures.push(failure);
    say(messageOf(failure));
  }
  if (failures.length > 0) throw new AggregateError(failures, `${failures.length} of ${steps.length} steps failed`);
}
