import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cast, Output } from './cast.ts';

/** A command to type, and the condition for the next one. */
export interface Step {
  readonly type: string;
  /** Waits until this command succeeds, outside of the recording. */
  readonly until?: string;
}

/** Prompt in green, to distinguish commands from output. */
const prompt = String.raw`\[\e[32m\]#\[\e[0m\] `;
const columns = 96;
const rows = 18;
/** A title that no terminal shows: the shell prints it when it waits for a command. */
const ready = '\u001b]2;ready\u0007';
const clearScreen = '\u001b[H\u001b[2J';
const typingMs = 40;
const readingMs = 800;
const stepTimeoutMs = 180_000;

/** Types `steps` into a shell on a terminal of its own, in `directory`, and returns the output to the terminal. */
export async function record(steps: readonly Step[], directory: string): Promise<Cast> {
  const shell = spawn(
    'script',
    ['--quiet', '--flush', '--return', '--command', 'bash --norc --noprofile -i', '/dev/null'],
    {
      cwd: directory,
      env: {
        ...process.env,
        TERM: 'xterm-256color',
        PROMPT_COMMAND: String.raw`printf '\033]2;ready\007'`,
      },
    },
  );
  const session = new Session(shell);
  try {
    await session.run(`PS1='${prompt}'; stty rows ${rows} cols ${columns}; clear`);
    session.begin();
    for (const { type, until } of steps) {
      await sleep(readingMs);
      await session.type(type);
      await session.enter();
      if (until !== undefined) await succeeds(until, directory);
    }
    await sleep(readingMs);
    return { columns, rows, outputs: session.outputs() };
  } finally {
    shell.stdin.end('exit\n');
    const timer = setTimeout(() => shell.kill('SIGKILL'), 10_000);
    if (shell.exitCode === null) await new Promise((resolve) => shell.once('exit', resolve));
    clearTimeout(timer);
  }
}

class Session {
  readonly #shell: ChildProcessWithoutNullStreams;
  #outputs: Output[] = [];
  #beganMs = 0;
  #isReady = Promise.withResolvers<void>();

  constructor(shell: ChildProcessWithoutNullStreams) {
    this.#shell = shell;
    shell.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#outputs.push({ atMs: Math.round(performance.now() - this.#beganMs), text: text.replaceAll(ready, '') });
      if (text.includes(ready)) this.#isReady.resolve();
    });
  }

  /** Begins the recording, with an empty screen and a prompt. */
  begin(): void {
    this.#beganMs = performance.now();
    const text = this.#outputs.map((output) => output.text).join('');
    this.#outputs = [{ atMs: 0, text: text.slice(text.lastIndexOf(clearScreen)) }];
  }

  outputs(): Output[] {
    return this.#outputs.filter(({ text }) => text !== '');
  }

  async run(command: string): Promise<void> {
    await this.#prompt();
    this.#isReady = Promise.withResolvers();
    this.#shell.stdin.write(`${command}\n`);
    await this.#prompt();
  }

  async type(text: string): Promise<void> {
    for (const character of text) {
      this.#shell.stdin.write(character);
      await sleep(typingMs);
    }
  }

  /** Ends the line, and waits for the next prompt. */
  async enter(): Promise<void> {
    this.#isReady = Promise.withResolvers();
    this.#shell.stdin.write('\n');
    await this.#prompt();
  }

  async #prompt(): Promise<void> {
    const late = AbortSignal.timeout(stepTimeoutMs);
    await Promise.race([
      this.#isReady.promise,
      new Promise((_, reject) =>
        late.addEventListener('abort', () => reject(new Error('the shell did not come back'))),
      ),
    ]);
  }
}

/** Errors: the command does not succeed within the time of a step. */
async function succeeds(command: string, directory: string): Promise<void> {
  const end = performance.now() + stepTimeoutMs;
  for (;;) {
    try {
      await promisify(execFile)('sh', ['-c', command], { cwd: directory });
      return;
    } catch (cause) {
      if (performance.now() > end) throw new Error(`Cannot record: ${command} never succeeded`, { cause });
      await sleep(200);
    }
  }
}
