import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { ContainerParams, ExecParams } from '#wire/container-params.ts';
import type { OciProcess } from './oci-config.ts';

const charsIn = (strings: readonly string[]): number => strings.reduce((sum, { length }) => sum + length, 0);

/** Limits the arguments that are kept while their container exists, since execs inherit variables. Errors: `exhausted`. */
export function checkKeptArguments(containers: readonly Pick<ContainerParams, 'process'>[]): void {
  const chars = containers.reduce((sum, { process }) => sum + charsIn(process.args) + charsIn(process.env), 0);
  if (chars <= limits.maxKeptArgumentBytes) return;
  throw new PodvmError(
    'exhausted',
    `Cannot create container: expected at most ${limits.maxKeptArgumentBytes} bytes of arguments and variables of a pod's containers, got ${chars}`,
  );
}

/** A further process of a container: with the container's variables, and its own. */
export function execProcess(first: OciProcess, params: ExecParams): OciProcess {
  const own = params.env ?? [];
  const inherited = first.env.filter(
    (entry) => !own.some((mine) => mine.startsWith(entry.slice(0, entry.indexOf('=') + 1))),
  );
  const hasTerm = [...inherited, ...own].some((entry) => entry.startsWith('TERM='));
  return {
    ...first,
    terminal: params.tty,
    ...(params.columns !== undefined && params.rows !== undefined
      ? { consoleSize: { width: params.columns, height: params.rows } }
      : {}),
    args: params.args,
    env: [...inherited, ...own, ...(params.tty && !hasTerm ? ['TERM=xterm'] : [])],
    cwd: params.cwd ?? first.cwd,
  };
}
