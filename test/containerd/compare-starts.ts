import { setTimeout } from 'node:timers/promises';
import { Pod } from './pod.ts';
import type { TourOptions } from './tour.ts';

const rounds = 3;
/** Time for the pool to make its next machine, in `ms`. */
const refillMs = 10_000;

/** Prints the time of a pod and its first container with either runtime, in turn: the median of some rounds. */
export async function compareStarts({ crictl, work, say }: TourOptions): Promise<void> {
  const took = { podvm: [] as number[], runc: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    await setTimeout(refillMs);
    for (const runtime of ['podvm', 'runc'] as const) {
      const startedMs = performance.now();
      const pod = await Pod.run(crictl, work, `start-${runtime}-${round}`, runtime);
      await pod.start('main', 'sleep 1000');
      took[runtime].push(Math.round(performance.now() - startedMs));
      await pod.remove();
    }
  }
  for (const [runtime, all] of Object.entries(took)) {
    say(`pod and container with ${runtime}: ${all.toSorted((a, b) => a - b)[1]} ms (${all.join(', ')})`);
  }
}
