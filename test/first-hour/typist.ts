import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';

/** What a user expects of a line that was typed. */
export interface Expected {
  /** What the screen shows, in this order. */
  readonly shows?: readonly RegExp[];
  /** Exit code. Default: 0. */
  readonly code?: number;
  readonly withinMs?: number;
  /** Whether lines may be wider than the terminal, as those of other programs. */
  readonly isWide?: boolean;
}

/** A screen that is not as expected. */
class WrongScreen extends Error {
  constructor(what: string, screen: string) {
    super(`${what}; the screen:\n${screen.trimEnd().replaceAll(/^/gm, '    | ')}`);
  }
}

const columns = 80;
const rows = 50;
/** What is before a prompt: a program that ends in order after Ctrl-C leaves the cursor where it is. */
const begin = '(?:\\n|\\^C)';
/** Generous: machines may be emulated, on a busy host. */
const defaultMs = 180_000;

/** A person at a shell in a terminal of 80 columns: tmux, which is a real terminal to the programs in it. */
export class Typist implements AsyncDisposable {
  readonly #directory: string;
  readonly #socket: string;
  /** Number of the line that is typed next, which the prompt shows after the exit code of the line before. */
  #line = 1;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#socket = join(directory, 'tmux');
  }

  /** Starts the shell in `directory`. */
  static async open(directory: string, environment: Readonly<Record<string, string>>): Promise<Typist> {
    const typist = new Typist(await mkdtemp('/tmp/podvm-typist-'));
    const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    const size = ['-x', `${columns}`, '-y', `${rows}`];
    const shell = ['env', '-u', 'PROMPT_COMMAND', ...set, 'PS1=[$?:\\#]$ ', 'bash', '--norc', '--noprofile', '-i'];
    await typist.#tmux('-f', '/dev/null', 'new-session', '-d', ...size, '-c', directory, ...shell);
    await typist.#tmux('set-option', '-g', 'history-limit', '20000');
    await typist.#untilBack('the shell', defaultMs);
    return typist;
  }

  /** Types a line, and waits until it has ended as expected. Returns what it has printed. */
  async type(line: string, expected: Expected = {}): Promise<string> {
    await this.send(line);
    return await this.ends(line, expected);
  }

  /** Waits until the shell is back. Returns what was printed since the last line was typed. */
  async ends(what: string, { shows = [], code = 0, withinMs = defaultMs, isWide = false }: Expected): Promise<string> {
    const begun = this.#line;
    this.#line += 1;
    const { printed, code: found, screen } = await this.#untilBack(what, withinMs, begun);
    if (found !== code) throw new WrongScreen(`\`${what}\` ended with ${found} and not ${code}`, screen);
    const lacking = missing(shows, printed);
    if (lacking !== undefined) throw new WrongScreen(`\`${what}\` does not show ${String(lacking)}`, screen);
    const wide = printed.split('\n').find((line) => line.length > columns && /\S {3,}\S/.test(line)); // a table
    if (wide !== undefined && !isWide) throw new WrongScreen(`a table of \`${what}\` does not fit`, screen);
    return printed;
  }

  /** Types a line, and waits until the screen shows something; the program runs on. */
  async begin(line: string, ...shows: readonly RegExp[]): Promise<void> {
    await this.send(line);
    await this.sees(line, ...shows);
  }

  /** Waits until the screen shows these, in this order, after the last line that was typed at the shell. */
  async sees(what: string, ...shows: readonly RegExp[]): Promise<void> {
    let screen = '';
    const isThere = async () => {
      screen = await this.#screen();
      return missing(shows, after(screen, this.#line)) === undefined ? true : undefined;
    };
    if ((await poll(isThere, { everyMs: 100, signal: AbortSignal.timeout(defaultMs) })) === true) return;
    throw new WrongScreen(`\`${what}\` does not show ${String(missing(shows, after(screen, this.#line)))}`, screen);
  }

  /** Types a line and Enter, as keys. */
  async send(line: string): Promise<void> {
    await this.#tmux('send-keys', '-l', '--', line);
    await this.press('Enter');
  }

  /** Presses a key, such as `C-c`. */
  async press(key: string): Promise<void> {
    await this.#tmux('send-keys', key);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmux('kill-server').catch(() => undefined); // it has ended with its shell
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** What was printed since the start; lines that the terminal has wrapped are one. */
  async #screen(): Promise<string> {
    return `\n${await this.#tmux('capture-pane', '-p', '-J', '-S', '-')}`;
  }

  /** Waits for the prompt of the next line. */
  async #untilBack(what: string, withinMs: number, begun?: number) {
    let screen = '';
    const look = async () => {
      screen = await this.#screen();
      const [, printed = '', code] =
        new RegExp(`^(.*)${begin}\\[(\\d+):${this.#line}\\]\\$ *\\n*$`, 's').exec(screen) ?? [];
      return code === undefined ? undefined : { printed, code: Number(code) };
    };
    const found = await poll(look, { everyMs: 50, signal: AbortSignal.timeout(withinMs) });
    if (found === undefined) throw new WrongScreen(`\`${what}\` has not ended after ${withinMs / 1000} s`, screen);
    const shown = begun === undefined ? found.printed : after(found.printed, begun);
    const printed = shown.includes('\n') ? shown.slice(shown.indexOf('\n') + 1) : '';
    return { printed, code: found.code, screen: after(screen, begun ?? 1) };
  }

  async #tmux(...words: readonly string[]): Promise<string> {
    // SAFE: Node's own environment has texts only
    const env = { ...(process.env as Record<string, string>), TERM: 'xterm-256color', LANG: 'C.UTF-8' };
    const { stdout } = await run('tmux', ['-S', this.#socket, ...words], { env, timeoutMs: 30_000 });
    return stdout;
  }
}

/** The screen from the prompt of a line on. */
function after(screen: string, line: number): string {
  const [prompt] = screen.match(new RegExp(`${begin}\\[\\d+:${line}\\]\\$ `)) ?? [];
  return prompt === undefined ? screen : screen.slice(screen.indexOf(prompt) + prompt.length);
}

/** The first expression that is not found after the one before; undefined if all are there. */
function missing(shows: readonly RegExp[], text: string): RegExp | undefined {
  let from = 0;
  for (const shown of shows) {
    const found = shown.exec(text.slice(from));
    if (found === null) return shown;
    from += found.index + found[0].length;
  }
  return undefined;
}
