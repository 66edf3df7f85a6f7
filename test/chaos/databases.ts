import { DatabaseNode, ends } from '../databases/database-node.ts';
import { databases } from '../databases/database-pod.ts';

export interface DatabasesOptions {
  readonly rounds: number;
  /** Gives a random number below another. */
  readonly below: (below: number) => number;
  readonly say: (text: string) => void;
}

const mostRows = 60;

/**
 * Each round ends all databases in each way, in every second round after their daemon was killed and replaced. No
 * committed row may be lost, and all databases must be consistent.
 */
export async function killDatabases({ rounds, below, say }: DatabasesOptions): Promise<void> {
  await using node = await DatabaseNode.open();
  for (let round = 1; round <= rounds; round += 1) {
    for (const [at, end] of ends.entries()) {
      const isAdopted = (round + at) % 2 === 1;
      const rows = 1 + below(mostRows);
      const startMs = performance.now();
      const committed = await node.loseNothing({ databases, isAdopted, end, rows });
      const counts = [...committed].map(([{ name }, count]) => `${name} ${count}`).join(', ');
      const seconds = Math.round((performance.now() - startMs) / 1000);
      say(`${end}${isAdopted ? ', after the daemon' : ''}: no row lost (${counts}), ${seconds} s`);
    }
  }
}
