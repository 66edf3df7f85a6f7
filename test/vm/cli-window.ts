import { spawn } from 'node:child_process';
import { repo } from './cli-node.ts';

/** A shell line in a terminal of its own, as in a window; its end closes the terminal. */
export function openWindow(line: string, environment: Readonly<Record<string, string>> = {}) {
  const child = spawn('script', ['-qec', line, '/dev/null'], {
    cwd: repo,
    env: { ...process.env, ...environment, SHELL: '/bin/sh' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  const looks = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
    for (const look of looks) look();
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    type: (text: string) => child.stdin.write(text),
    screen: () => screen,
    ended,
    /** Resolves with the match in the shown text; rejects after a minute, or when the window closes before. */
    shows: (pattern: RegExp) =>
      new Promise<RegExpExecArray>((resolve, reject) => {
        const look = () => {
          const found = pattern.exec(screen);
          if (found !== null) resolve(found);
        };
        looks.add(look);
        const fail = () => reject(new Error(`no ${String(pattern)} on the screen:\n${screen}`));
        AbortSignal.timeout(60_000).addEventListener('abort', fail);
        void ended.then(fail);
        look();
      }),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL'); // closes the terminal
      await ended;
    },
  };
}
