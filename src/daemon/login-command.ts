import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import type { LoginWish, LogoutWish } from '#api/registry-logins.ts';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { isLoopback } from '#base/image-reference.ts';
import { startChild } from '#host/process/start-child.ts';
import { explainSkopeo } from '#image/source/skopeo-words.ts';

/**
 * Runs `skopeo login` as the user: it tries the password at the registry, and writes the file only if it is accepted. The
 * password is neither an argument nor read here. Errors: `denied`, `unavailable`, `failedPrecondition`, `cancelled`.
 */
export async function login(wish: LoginWish, signal: AbortSignal): Promise<void> {
  const { registry, username, passwordStdin, authfile, insecure } = wish;
  const isPlain = insecure || isLoopback({ registry: registry.split('/')[0] ?? '', repository: '' });
  const flags = [
    ...(isPlain ? ['--tls-verify=false'] : []),
    ...(username === undefined ? [] : [`--username=${username}`]),
    ...(passwordStdin ? ['--password-stdin'] : []),
  ];
  const stderr = await skopeo(['login', ...flags, ...fileFlag(authfile), '--', registry], signal);
  if (stderr === undefined) return;
  const error = explainSkopeo(`log in to ${printable(registry)}`, stderr);
  if (error.kind !== 'denied') throw error;
  throw new PodvmError(
    'denied',
    `Cannot log in to ${printable(registry)}: the registry does not accept the user name and password`,
    {
      cause: error.cause,
      fix: 'Check both; some registries want a token in place of the password.',
    },
  );
}

/** Runs `skopeo logout` as the user. Errors: `notFound`, `failedPrecondition`, `cancelled`. */
export async function logout({ registry, authfile }: LogoutWish, signal: AbortSignal): Promise<void> {
  const stderr = await skopeo(
    ['logout', ...fileFlag(authfile), ...(registry === undefined ? ['--all'] : ['--', registry])],
    signal,
  );
  if (stderr === undefined) return;
  const act = `log out of ${registry === undefined ? 'all registries' : printable(registry)}`;
  if (!/not logged in/i.test(stderr)) throw explainSkopeo(act, stderr);
  throw new PodvmError('notFound', `Cannot ${act}: there is no login`, {
    fix: 'Log out with the program that has the login, such as `docker logout`, or give its file with --authfile.',
  });
}

const fileFlag = (path: string | undefined) => (path === undefined ? [] : [`--authfile=${path}`]);

/** Limit of standard error; its end is kept. */
const maxErrorBytes = 64 * 1024;

/** Runs it with the terminal and environment of this process. Returns its standard error if it fails. */
async function skopeo(args: readonly string[], signal: AbortSignal): Promise<string | undefined> {
  signal.throwIfAborted();
  const child = await startChild('skopeo', args, { stdio: ['inherit', 'inherit', 'pipe'] });
  const end = () => void child.kill('SIGTERM');
  signal.addEventListener('abort', end, { once: true });
  let stderr = Buffer.alloc(0);
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = Buffer.concat([stderr, chunk]).subarray(-maxErrorBytes);
  });
  const [code] = (await once(child, 'close')) as [number | null]; // SAFE: what Node's event has
  signal.removeEventListener('abort', end);
  if (signal.aborted) {
    // Ctrl-C at its question for the password leaves the terminal without echo.
    if (process.stdin.isTTY) spawnSync('stty', ['echo'], { stdio: ['inherit', 'ignore', 'ignore'] });
    signal.throwIfAborted();
  }
  return code === 0 ? undefined : stderr.toString('utf8');
}
