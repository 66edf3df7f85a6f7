import { run, type RunResult } from '#host/process/run.ts';

/** A command inside the build root, a directory of extracted Debian packages with a compiler. */
export interface BuildCommand {
  /** Directory of the build root, mounted read-only as `/`. */
  readonly buildRoot: string;
  /** The only writable directory, mounted as `/work`; also the current directory. */
  readonly workDir: string;
  readonly program: string;
  readonly args: readonly string[];
  /** More read-only directories or files, as path inside -> path on the host. */
  readonly readOnly?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Default 300,000 `ms`. */
  readonly timeoutMs?: number;
  readonly signal: AbortSignal;
}

/**
 * Runs a program of the build root, without network, capabilities or access to the host's files. It ends with this
 * process. Errors: those of `run`; the compiler's last lines are in `tail`.
 */
export async function runInBuildRoot(command: BuildCommand): Promise<RunResult> {
  const { readOnly = {}, env = {}, timeoutMs = 300_000 } = command;
  const extraBinds = Object.entries(readOnly).map(([inside, host]) => ['--ro-bind', host, inside]);
  const variables = { PATH: '/usr/bin:/usr/sbin', LC_ALL: 'C', HOME: '/tmp', ...env };
  const switches = [
    // A tmpfs as root allows any mount point; the build root's own directories are mounted into it.
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
