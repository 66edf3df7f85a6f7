import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { ContainerParams, ExecParams } from '#wire/container-params.ts';
import type { Answer, Params, ProcessExit, ToldEvent } from '#wire/messages.ts';

type Exited = Extract<ToldEvent, { kind: 'exited' }>;

interface FakeContainer {
  readonly pid: number;
  readonly streams: readonly Duplex[];
  state: 'created' | 'running' | 'exited';
  startedAtMs?: number;
  exit?: ProcessExit;
  /** The running commands. */
  readonly execs: Map<string, { readonly pid: number; readonly streams: readonly Duplex[] }>;
}

const killSignal = 9;

/**
 * The containers of a fake guest. Only SIGKILL ends their first processes, which handle no signal: the kernel does not
 * deliver such signals to the first process of a pid namespace.
 */
export class FakeGuestContainers {
  readonly #tell: (event: ToldEvent) => void;
  readonly #containers = new Map<string, FakeContainer>();
  #lastPid = 1;

  constructor(tell: (event: ToldEvent) => void) {
    this.#tell = tell;
  }

  get isEmpty(): boolean {
    return this.#containers.size === 0;
  }

  get ids(): readonly string[] {
    return [...this.#containers.keys()];
  }

  list(): Answer<'list'>['containers'] {
    return [...this.#containers].map(([id, { pid, startedAtMs, exit, execs }]) => ({
      id,
      pid,
      ...(startedAtMs === undefined ? {} : { startedAtMs }),
      ...(exit === undefined ? {} : { exit }),
      execs: [...execs].map(([execId, exec]) => ({ execId, pid: exec.pid })),
    }));
  }

  create({ id }: ContainerParams, streams: readonly Duplex[]): Answer<'createContainer'> {
    if (this.#containers.has(id)) throw new PodvmError('alreadyExists', `Cannot create container ${id}: it exists`);
    if (this.#containers.size >= limits.maxContainers)
      throw new PodvmError('exhausted', 'Cannot create container: too many');
    const pid = this.#nextPid();
    this.#containers.set(id, { pid, streams, state: 'created', execs: new Map() });
    return { pid, uid: 0, gid: 0, groups: [], phases: [] };
  }

  start(id: string): Answer<'startContainer'> {
    const container = this.#find(id);
    if (container.state === 'running')
      throw new PodvmError('internal', `Cannot start container ${id}: it is ${container.state}`);
    if (container.state === 'created') container.state = 'running';
    container.startedAtMs = Date.now();
    return { startedAtMs: container.startedAtMs };
  }

  exec({ containerId, execId }: ExecParams, streams: readonly Duplex[]): Answer<'startExec'> {
    const { state, execs } = this.#find(containerId);
    if (state === 'exited') throw new PodvmError('failedPrecondition', `Cannot exec in ${containerId}: it has exited`);
    if (execs.has(execId)) throw new PodvmError('alreadyExists', `Cannot exec ${execId}: it exists`);
    const pid = this.#nextPid();
    execs.set(execId, { pid, streams });
    return { pid };
  }

  signal({ id, signal }: Params<'signalContainer'>): Record<string, never> {
    const container = this.#containers.get(id);
    if (container === undefined) throw new PodvmError('notFound', `Cannot signal container ${id}: there is none`);
    if (signal === killSignal) this.#kill(id, container);
    return {};
  }

  signalExec({ containerId, execId, signal }: Params<'signalExec'>): Record<string, never> {
    if (this.#find(containerId).execs.has(execId)) this.#end(killed({ containerId, execId }, signal));
    return {};
  }

  remove(id: string): Record<string, never> {
    const container = this.#containers.get(id);
    if (container !== undefined) this.#kill(id, container);
    this.#containers.delete(id);
    return {};
  }

  killAll(): void {
    for (const [id, container] of this.#containers) this.#kill(id, container);
  }

  /** Errors: `notFound`. */
  check(id: string): Record<string, never> {
    this.#find(id);
    return {};
  }

  /** Ends a process: its output ends, and with the first process all commands. */
  exited({ kind: _kind, containerId, execId, ...exit }: Exited): void {
    const container = this.#containers.get(containerId);
    if (container === undefined) return;
    if (execId !== undefined) {
      for (const stream of container.execs.get(execId)?.streams ?? []) stream.end();
      container.execs.delete(execId);
      return;
    }
    if (container.state === 'exited') return;
    container.state = 'exited';
    container.exit = exit;
    for (const stream of container.streams) stream.end();
    for (const exec of container.execs.keys()) this.#end(killed({ containerId, execId: exec }, killSignal));
  }

  #kill(containerId: string, { state }: FakeContainer): void {
    if (state !== 'exited') this.#end(killed({ containerId }, killSignal));
  }

  #end(event: Exited): void {
    this.exited(event);
    this.#tell(event);
  }

  #find(id: string): FakeContainer {
    const container = this.#containers.get(id);
    if (container === undefined) throw new PodvmError('notFound', `Cannot use container ${id}: there is none`);
    return container;
  }

  #nextPid(): number {
    return (this.#lastPid += 1);
  }
}

function killed(process: Pick<Exited, 'containerId' | 'execId'>, signal: number): Exited {
  return { kind: 'exited', ...process, exitCode: 128 + signal, signal, oomKilled: false, finishedAtMs: Date.now() };
}
