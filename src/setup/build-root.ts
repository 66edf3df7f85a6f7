import { run, type RunResult } from '#host/run.ts';

/** One command inside the build root: a directory of extracted Debian packages with a compiler. */
export interface BuildCommand {
  /** The build root's directory; seen as `/`, read-only. */
  readonly buildRoot: string;
  /** The one place the command may write; seen as `/work`, and its current directory. */
  readonly workDir: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Further host directories or files, read-only: path inside -> path on the host. `/src`-like places of your choice. */
  readonly readOnly?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Default 300,000 `ms`. */
  readonly timeoutMs?: number;
  readonly signal: AbortSignal;
}

/**
 * Runs a program of the build root, without network, capabilities or sight of the host's files. It ends with us.
 * Errors: those of `run`; the compiler's last lines are in `tail`.
 */
export async function runInBuildRoot(command: BuildCommand): Promise<RunResult> {
  const { readOnly = {}, env = {}, timeoutMs = 300_000 } = command;
  const extraBinds = Object.entries(readOnly).map(([inside, host]) => ['--ro-bind', host, inside]);
  const variables = { PATH: '/usr/bin:/usr/sbin', LC_ALL: 'C', HOME: '/tmp', ...env };
  const switches = [
    // A tmpfs as root, so that any bind target can be made; the build root's own directories are laid into it.
    ['--tmpfs', '/'],
    ['--ro-bind', `${command.buildRoot}/usr`, '/usr'],
    ['--ro-bind', `${command.buildRoot}/etc`, '/etc'],
    ...['bin', 'sbin', 'lib', 'lib64'].map((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ['--dev', '/dev', '--proc', '/proc', '--tmpfs', '/tmp'],
    ['--bind', command.workDir, '/work'],
    ...extraBinds,
    ['--unshare-pid', '--unshare-net', '--unshare-ipc', '--unshare-uts'],
    ['--cap-drop', 'ALL', '--new-session', '--die-with-parent'],
    ['--clearenv'],
    ...Object.entries(variables).map(([name, value]) => ['--setenv', name, value]),
    ['--chdir', '/work', '--', command.program, ...command.args],
  ];
  return await run('bwrap', switches.flat(), { signal: command.signal, timeoutMs });
}
