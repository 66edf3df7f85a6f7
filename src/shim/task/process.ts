import type { OciResources } from '../bundle/oci-spec.ts';
import type { Bundle } from '../bundle/bundle.ts';
import type { IoPaths } from '../io/fifos.ts';
import type { Figures } from '../translate/metrics.ts';
import type { TaskKind } from '../translate/sandbox-spec.ts';
import type { ProcessLife } from './process-life.ts';

/** A process that containerd knows by ids: the first of a task, or a command in it. */
export interface TaskProcess {
  readonly pid: number;
  readonly paths: IoPaths;
  readonly life: Pick<ProcessLife, 'state' | 'hasStarted' | 'exit' | 'exited'>;
  start(signal: AbortSignal): Promise<void>;
  kill(signalNumber: number, signal: AbortSignal): Promise<void>;
  resize(columns: number, rows: number, signal: AbortSignal): Promise<void>;
  endInput(): void;
  /** Frees its resources after it has ended. */
  remove(signal: AbortSignal): Promise<void>;
}

/** A task, in containerd's sense: a pod's sandbox, or a container. */
export interface Task extends TaskProcess {
  readonly id: string;
  readonly bundle: Bundle;
  readonly kind: TaskKind;
  /** Id of the sandbox of its pod; of its own for a single container. */
  readonly sandboxId: string;
  /** Id of the container in its sandbox; absent for the task of a sandbox. */
  readonly containerId?: string;
  /** Commands in it, by their ids. */
  readonly execs: Map<string, TaskProcess>;
  /** Returns its figures; undefined if it has none. */
  figures(signal: AbortSignal): Promise<Figures | undefined>;
  update(resources: OciResources, signal: AbortSignal): Promise<void>;
  /** Makes a command that can be started. */
  makeExec(exec: ExecRequest): TaskProcess;
}

export interface ExecRequest {
  readonly id: string;
  readonly pid: number;
  readonly paths: IoPaths;
  readonly command: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly size?: { readonly columns: number; readonly rows: number };
}
