import { exercise } from './exercise.ts';
import { machineSteps, type MachineMade, type MachineSite } from './machine-steps.ts';
import { stepOf, type Steps } from './run-steps.ts';

interface SpareMade extends MachineMade {
  readonly exercised: void;
  readonly connectedAhead: void;
}

const step = stepOf<SpareMade, MachineSite>();

/** The steps to a machine that waits in the pool. */
export const spareSteps: Steps<SpareMade, MachineSite> = {
  ...machineSteps,
  exercised: step({
    name: 'machine exercised',
    what: 'the machine is used once as a pod would (`src/sandbox/start/exercise.ts`)',
    needs: ['directory', 'attachment', 'machine', 'guest', 'scratchReady'],
    run: (made, { context }, signal) => exercise(made, context, signal),
  }),
  connectedAhead: step({
    name: 'network connected ahead',
    what: 'the network is connected as far as that does not depend on the pod',
    needs: ['attachment'],
    run: ({ attachment }, _site, signal) => attachment.connectAhead(signal),
  }),
};
