import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { callersEnv } from './callers-env.ts';
import { parseGinkgoReport, type Spec } from './report.ts';

export interface SuiteOptions {
  readonly critest: string;
  readonly endpoint: string;
  /** Directory for its configuration and report. */
  readonly work: string;
  /** Directory for the temporary files of its specs. */
  readonly temporary: string;
  /** Regular expressions over specs' names. */
  readonly focus: string | undefined;
  readonly skip: string | undefined;
  /** Further flags of critest, such as `-websocket-exec`. */
  readonly flags: readonly string[];
  readonly signal: AbortSignal;
}

const suiteTimeout = '60m';

/**
 * Runs the suite, whose own output goes to standard error. Errors: `internal` when it ends without a report.
 */
export async function runCritest(options: SuiteOptions): Promise<readonly Spec[]> {
  const report = join(options.work, 'critest.json');
  const config = join(options.work, 'crictl.yaml');
  await writeFile(config, `runtime-endpoint: ${options.endpoint}\nimage-endpoint: ${options.endpoint}\n`);
  const args = [
    ...['-config', config, '-runtime-endpoint', options.endpoint, '-image-endpoint', options.endpoint],
    // Without a limit of its own Go ends every test binary after ten minutes.
    ...['-ginkgo.no-color', `-ginkgo.timeout=${suiteTimeout}`, `-test.timeout=${suiteTimeout}`],
    `-ginkgo.json-report=${report}`,
    ...(options.focus === undefined ? [] : [`-ginkgo.focus=${options.focus}`]),
    ...(options.skip === undefined ? [] : [`-ginkgo.skip=${options.skip}`]),
    ...options.flags,
  ];
  const env = callersEnv({ TMPDIR: options.temporary });
  const child = spawn(options.critest, args, {
    stdio: ['ignore', 2, 2],
    cwd: options.work,
    env,
    signal: options.signal,
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  const json = await readFile(report, 'utf8').catch((cause: unknown) => {
    throw new PodvmError('internal', `Cannot judge: critest ended with ${code ?? 'a signal'} and without a report`, {
      cause,
    });
  });
  return parseGinkgoReport(json);
}
