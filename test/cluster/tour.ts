import type { Cluster, Worker } from './cluster.ts';

/** Cluster with its workers, through which all steps go. */
export interface Tour extends Cluster {
  /** Its kubelet uses podvm, with a delegate. */
  readonly first: Worker;
  /** Its kubelet uses containerd, with the runtimes podvm and runc. */
  readonly second: Worker;
  readonly say: (text: string) => void;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Tour of steps that are walked once for each worker. */
export interface WorkerTour extends Tour {
  readonly at: Worker;
}

/** Tour of steps that type `helm`. */
export interface HelmTour extends Tour {
  /** Path of the program. */
  readonly helm: string;
}
