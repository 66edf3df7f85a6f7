/** Environment variable that `npm run check` sets: properties are tried with a quarter of their runs. */
export const briefVariable = 'PODVM_BRIEF_TESTS';

/** Number of runs of a property that takes much of the time of `npm run check`. */
export const propertyRuns = (full: number): number => (process.env[briefVariable] === '1' ? Math.ceil(full / 4) : full);
