import { PassThrough } from 'node:stream';
import { messageOf, PodvmError } from '#base/errors.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type {
  Container,
  ContainerExit,
  ContainerSpec,
  ContainerState,
  Exec,
  ExecSpec,
  OutputChunk,
} from '#sandbox/sandbox.ts';
import { withChange } from '#sandbox/resources.ts';
import type { FakeClock } from './fake-clock.ts';

/** Behaviour of a container in a test; omitted parts do nothing. */
export interface FakeBehaviour {
  readonly createError?: (attempt: number) => PodvmError | undefined;
  readonly startError?: PodvmError;
  /** What its start, and a change of its terminal before that, wait for. */
  readonly starts?: Promise<void>;
  /** Its creation showed that it cannot be started. */
  readonly isUnstartable?: boolean;
  readonly warnings?: readonly string[];
  /** Called when it runs. May exit at once, or later by a clock. */
  readonly onStart?: (container: FakeContainer) => void;
  /** Default: exits with 143. */
  readonly onTerm?: (container: FakeContainer) => void;
  readonly updateError?: () => PodvmError | undefined;
  readonly onExec?: (command: readonly string[], container: FakeContainer) => number | 'hang';
}

export interface FakeContainer extends Container {
  readonly spec: ContainerSpec;
  readonly isRemoved: boolean;
  exit(exitCode: number, reason?: ContainerExit['reason'], texts?: Pick<ContainerExit, 'why' | 'message'>): void;
  /** Resolves when every follower has received the text. */
  print(text: string): Promise<void>;
}

/** Makes a container without a process; `sandbox.conformance.ts` holds it to the contract in `sandbox.ts`. */
export function createFakeContainer(
  spec: ContainerSpec,
  behaviour: FakeBehaviour,
  clock: FakeClock,
  journal: string[],
): FakeContainer {
  const label = `${spec.name}/${spec.attempt}`;
  const exited = Promise.withResolvers<ContainerExit>();
  const followers = new Set<(chunk: OutputChunk) => Promise<void>>();
  const createdAt = new Date(clock.now());
  let state: ContainerState = 'created';
  let startedAt: Date | undefined;
  let exit: ContainerExit | undefined;
  let starting: Promise<void> | undefined;
  let isRemoved = false;
  let { resources } = spec;
  let printing: Promise<void> = Promise.resolve();
  const start = async (signal: AbortSignal) => {
    if (exit?.reason === 'StartError') throw new PodvmError('failedPrecondition', `Cannot start ${label}: ${exit.why}`);
    if (state !== 'created') throw new PodvmError('failedPrecondition', `Cannot start ${label}: it is ${state}`);
    if (behaviour.startError !== undefined) {
      container.exit(127, 'StartError', { why: behaviour.startError.message });
      throw behaviour.startError;
    }
    if (behaviour.starts !== undefined) await startAfter(behaviour.starts, signal);
    journal.push(`start ${label}`);
    state = 'running';
    startedAt = new Date(clock.now());
    behaviour.onStart?.(container);
  };
  const startAfter = async (starts: Promise<void>, signal: AbortSignal) => {
    try {
      await untilAborted(starts, signal);
    } catch (error) {
      container.exit(128, 'StartError', { why: messageOf(error) });
      throw error;
    }
  };
  const container: FakeContainer = {
    spec,
    get isRemoved() {
      return isRemoved;
    },
    get status() {
      const { name, attempt, image } = spec;
      const base = {
        id: label,
        name,
        attempt,
        state,
        image,
        imageId: `sha256:${name}`,
        createdAt,
        mounts: [],
        logPath: '',
      };
      return {
        ...base,
        ...(startedAt === undefined ? {} : { startedAt }),
        ...(exit === undefined ? {} : { exit }),
      };
    },
    exited: exited.promise,
    start: (signal) => (starting ??= start(signal)),
    exit(exitCode, reason = exitCode === 0 ? 'Completed' : 'Error', texts = {}) {
      if (state === 'exited') return;
      journal.push(`exit ${label} ${exitCode}`);
      state = 'exited';
      exit = { exitCode, reason, finishedAt: new Date(clock.now()), ...texts };
      exited.resolve(exit);
    },
    print(text) {
      const chunk = { stream: 'stdout', bytes: Buffer.from(text) } as const;
      printing = printing.then(async () => {
        await Promise.all([...followers].map((follower) => follower(chunk)));
      });
      return printing;
    },
    async kill(signalNumber) {
      if (state === 'exited') return;
      journal.push(`kill ${label}`);
      container.exit(128 + signalNumber);
    },
    async stop(graceMs) {
      if (state !== 'exited') {
        journal.push(`stop ${label}`);
        if (state === 'created' || graceMs <= 0) container.exit(137);
        else if (behaviour.onTerm === undefined) container.exit(143);
        else behaviour.onTerm(container);
        const cancel = clock.after(graceMs, () => container.exit(137));
        void exited.promise.then(cancel);
      }
      return await exited.promise;
    },
    async exec(exec, signal) {
      const { command } = exec;
      signal.throwIfAborted();
      if (state !== 'running') throw new PodvmError('failedPrecondition', `Cannot exec in ${label}: it is ${state}`);
      journal.push(`exec ${label} ${command.join(' ')}`);
      const code = behaviour.onExec?.(command, container) ?? 0;
      return fakeExec(exec, code, exited.promise);
    },
    stdin: spec.stdin ? new PassThrough() : undefined,
    get resources() {
      return resources;
    },
    warnings: behaviour.warnings ?? [],
    async resize(columns, rows, signal) {
      if (state === 'created' && behaviour.starts !== undefined) await untilAborted(behaviour.starts, signal);
      journal.push(`resize ${label} ${columns}x${rows}`);
    },
    async update(changed) {
      const failure = behaviour.updateError?.();
      if (failure !== undefined) throw failure;
      journal.push(`update ${label} ${JSON.stringify(changed)}`);
      resources = withChange(resources, changed);
      return [];
    },
    reopenLog: () => Promise.resolve(),
    follow(onChunk) {
      followers.add(onChunk);
      return {
        ended: exited.promise.then(() => printing),
        stop: () => followers.delete(onChunk),
      };
    },
    async remove() {
      if (isRemoved) return;
      if (state !== 'exited') throw new PodvmError('failedPrecondition', `Cannot remove ${label}: it is ${state}`);
      journal.push(`remove ${label}`);
      isRemoved = true;
    },
  };
  if (behaviour.isUnstartable === true) container.exit(127, 'StartError', { why: 'no such file' });
  return container;
}

function fakeExec({ tty, stdin }: ExecSpec, code: number | 'hang', containerExited: Promise<unknown>): Exec {
  const exited = Promise.withResolvers<{ exitCode: number }>();
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
  const end = (exitCode: number) => {
    streams.stdin.destroy();
    streams.stdout.end();
    streams.stderr.end();
    exited.resolve({ exitCode });
  };
  if (code === 'hang') void containerExited.then(() => end(137));
  else end(code);
  return {
    ...(stdin ? { stdin: streams.stdin } : {}),
    stdout: streams.stdout,
    ...(tty ? {} : { stderr: streams.stderr }),
    resize: () => Promise.resolve(),
    kill: async (signalNumber) => end(128 + signalNumber),
    exited: exited.promise,
  };
}
