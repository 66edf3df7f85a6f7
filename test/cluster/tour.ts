import type { Cluster, Worker } from './cluster.ts';

/** Cluster and node that steps use while there is one node. */
export interface FirstTour extends Cluster {
  /** Its kubelet uses podvm, with a delegate. */
  readonly first: Worker;
  readonly say: (text: string) => void;
}
