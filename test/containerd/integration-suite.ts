import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import { run } from '#host/process/run.ts';
import { callersEnv } from '../conformance/callers-env.ts';
import { goEnv, inNewDirectory, sourceOf } from '../conformance/go-module.ts';
import type { Spec } from '../conformance/report.ts';
import { type MinorVersion, modules } from './build-containerd.ts';
import { suiteImages } from './suite-images.ts';

const buildTimeoutMs = 60 * 60_000;
/** Timeout of one test, which Go ends with a list of what was running. */
const testTimeout = '4m';

/** Builds the suite of one version of containerd for its CRI, once, into `cache`. */
export async function buildIntegrationSuite(cache: string, signal: AbortSignal, minor: MinorVersion): Promise<string> {
  const module = modules[minor];
  const home = join(cache, `containerd-integration-${module.version}`);
  await inNewDirectory(home, async (work) => {
    const env = { ...goEnv(), CGO_ENABLED: '0', GOTMPDIR: work };
    const options = { signal, env, timeoutMs: buildTimeoutMs, cwd: work };
    const flags = ['-c', '-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', join(work, 'integration.test')];
    await run('go', ['test', ...flags, './integration'], { ...options, cwd: await sourceOf(module, options) });
  });
  return join(home, 'integration.test');
}

export interface IntegrationOptions {
  readonly program: string;
  readonly endpoint: string;
  /** Name of containerd's program, which is started again when a test has killed it. */
  readonly containerdName: string;
  /** Runtime handler of the tests' pods. */
  readonly handler: string;
  readonly work: string;
  readonly temporary: string;
  /** Directories of the programs that the tests run. */
  readonly path: string;
  /** Which tests to run. */
  readonly runs: (name: string) => boolean;
  /** Removes what a test has left. */
  readonly tidy: () => Promise<void>;
  readonly say: (text: string) => void;
  readonly signal: AbortSignal;
}

/** Runs each test by itself, so that one that ends its process or hangs does not decide about the others. */
export async function runIntegrationSuite(options: IntegrationOptions): Promise<readonly Spec[]> {
  const { program, endpoint, containerdName, handler, work, temporary, runs, tidy, say, signal } = options;
  const list = join(work, 'images.toml');
  await writeFile(list, stringify(suiteImages));
  const env = callersEnv({ TMPDIR: temporary, PATH: options.path });
  const common = [
    ...['-test.v', `-test.timeout=${testTimeout}`, `-cri-endpoint=${endpoint}`, `-image-list=${list}`],
    ...[`-runtime-handler=${handler}`, `-containerd-bin=${containerdName}`],
  ];
  const { stdout } = await run(program, [...common, '-test.list=.'], { signal, cwd: work });
  const specs: Spec[] = [];
  for (const name of stdout.split('\n').filter((line) => /^Test\w+$/.test(line))) {
    if (!runs(name)) {
      specs.push({ name, outcome: 'skipped', message: '', ms: 0 });
      continue;
    }
    const child = spawn(program, [...common, `-test.run=^${name}$`], { cwd: work, env, signal });
    let said = '';
    for (const output of [child.stdout, child.stderr])
      output.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-maxOutput)));
    const [code] = (await once(child, 'close')) as [number | null];
    const found = specsOf(name, code, said);
    specs.push(...found);
    for (const { name: leaf, outcome, ms } of found) say(`${outcome}: ${leaf} (${ms} ms)`);
    if (code !== 0) process.stderr.write(`${said}\n`);
    await tidy();
  }
  return specs;
}

const maxOutput = 1024 * 1024;

const outcomes = { PASS: 'passed', FAIL: 'failed', SKIP: 'skipped' } as const;

/** Results of a test or, if it has any, of its subtests, from the output of `-test.v`. A test without a result has failed. */
export function specsOf(name: string, code: number | null, said: string): readonly Spec[] {
  const results = [...said.matchAll(/^ *--- (PASS|FAIL|SKIP): (\S+) \((\d+\.\d+)s\)$/gm)].map(
    ([, word = '', of = '', seconds]): Spec => {
      const outcome = outcomes[word as keyof typeof outcomes]; // SAFE: the words of the expression
      return {
        name: of,
        outcome,
        message: outcome === 'passed' ? '' : wordsOf(of, said),
        ms: Math.round(Number(seconds) * 1000),
      };
    },
  );
  const leaves = results.filter(({ name: one }) => !results.some((other) => other.name.startsWith(`${one}/`)));
  const isTold = leaves.length > 0 && (code === 0 || leaves.some(({ outcome }) => outcome === 'failed'));
  return isTold ? leaves : [...leaves, { name, outcome: 'failed', message: said, ms: 0 }];
}

/** What a test said: the lines from its begin to that of the next one. */
function wordsOf(name: string, said: string): string {
  const lines = said.split('\n');
  const from = lines.findIndex((line) => line === `=== RUN   ${name}`);
  const length = lines.slice(from + 1).findIndex((line) => /^(?:=== RUN|--- )/.test(line));
  return lines.slice(from + 1, length < 0 ? undefined : from + 1 + length).join('\n');
}
