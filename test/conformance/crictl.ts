import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { readFile, readlink } from 'node:fs/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv, run, type RunResult } from '#host/process/run.ts';

const patienceMs = 60_000;

/** Runs crictl with the arguments that a user would type. */
export class Crictl {
  readonly #program: string;
  readonly #flags: readonly string[];
  readonly #signal: AbortSignal;

  constructor(program: string, endpoint: string, signal: AbortSignal) {
    this.#program = program;
    this.#flags = ['--config', '/dev/null', '-r', endpoint, '-i', endpoint, '-t', '60s'];
    this.#signal = signal;
  }

  /** Errors: `internal` when it fails, with its last lines. */
  async run(...args: readonly string[]): Promise<string> {
    return (await this.#run(args, [0])).stdout;
  }

  /** Runs a command that may fail with exit code 1, which does not depend on that of the container. */
  async try(args: readonly string[], input: Uint8Array = Buffer.alloc(0)): Promise<RunResult> {
    return await this.#run(args, [0, 1], input);
  }

  async json<T>(schema: v.GenericSchema<unknown, T>, command: string, ...args: readonly string[]): Promise<T> {
    return v.parse(schema, JSON.parse(await this.run(command, '-o', 'json', ...args)));
  }

  /** Starts a command that runs in the background. */
  begin(...args: readonly string[]): Conversation {
    return new Conversation(spawn(this.#program, [...this.#flags, ...args], { env: defaultEnv() }));
  }

  /** Starts a command on a terminal of 31 rows and 99 columns. */
  type(...args: readonly string[]): Conversation {
    return typeOnTerminal([this.#program, ...this.#flags, ...args]);
  }

  async #run(args: readonly string[], okCodes: readonly number[], input?: Uint8Array): Promise<RunResult> {
    const options = { signal: this.#signal, okCodes, timeoutMs: patienceMs, ...(input === undefined ? {} : { input }) };
    return await run(this.#program, [...this.#flags, ...args], options);
  }
}

/** Starts a program on a terminal of 31 rows and 99 columns. */
export function typeOnTerminal(argv: readonly string[]): Conversation {
  const words = argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  const command = `stty rows 31 cols 99; exec ${words.join(' ')}`;
  const env = { ...defaultEnv(), TERM: 'xterm', SHELL: '/bin/sh' };
  return new Conversation(spawn('script', ['-qfec', command, '/dev/null'], { env }));
}

/** An interactive command. Disposing kills it if it still runs. */
export class Conversation implements AsyncDisposable {
  readonly child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<number | null>;
  #said = '';
  #look = () => {};

  constructor(child: ChildProcessWithoutNullStreams) {
    this.child = child;
    child.stdin.on('error', () => {}); // it may end before it has read everything
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#said += text;
        this.#look();
      });
    }
    this.#ended = new Promise((resolve) => void child.once('close', resolve));
  }

  /** Resolves with the match in its output. Errors: `timeout`, with the output. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#within(
      String(pattern),
      new Promise((resolve) => {
        this.#look = () => {
          const match = pattern.exec(this.#said);
          if (match !== null) resolve(match);
        };
        this.#look();
      }),
    );
  }

  write(text: string): void {
    this.child.stdin.write(text);
  }

  /** Changes the size of the terminal of `typeOnTerminal`, as a user does that of a window. */
  async resize(rows: number, columns: number): Promise<void> {
    const { pid } = this.child;
    const [inner = ''] = (await readFile(`/proc/${pid}/task/${pid}/children`, 'latin1')).split(' ');
    const terminal = await readlink(`/proc/${inner}/fd/0`);
    await run('stty', ['-F', terminal, 'rows', String(rows), 'cols', String(columns)]);
  }

  /** Its exit code; null for one that was killed. */
  async ends(): Promise<number | null> {
    return await this.#within('its end', this.#ended);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }

  async #within<T>(what: string, promise: Promise<T>): Promise<T> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      reject(new PodvmError('timeout', `Cannot see ${what}, got ${JSON.stringify(this.#said.slice(-400))}`));
    }, patienceMs);
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}
