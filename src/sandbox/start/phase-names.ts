import { admissionSteps, startSteps } from './pod-steps.ts';

/** Names of all steps of a start, as its timeline has them. */
export const phaseNames: readonly string[] = [...Object.values(admissionSteps), ...Object.values(startSteps)].map(
  ({ name }) => name,
);
