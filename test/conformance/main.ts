import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { callersEnv } from './callers-env.ts';
import { buildCriTools, version } from './cri-tools.ts';
import { startDelegate } from './delegate.ts';
import { goVersion } from './go-module.ts';
import { type ConformanceNode, startNode } from './node.ts';
import { tourWithCrictl } from './crictl-tour.ts';
import { judge, leftOutPattern, parseExpectations, type Spec, type Verdict } from './report.ts';
import { runCritest, type SuiteOptions } from './run-critest.ts';
import { serveStandIns } from './serve-stand-ins.ts';
import { makeWorkDirectory } from './work-directory.ts';
import { makeAnotherBuild } from '../vm/make-another-build.ts';

/*
 * `npm run conformance -- --json FILE [--focus RE] [--skip RE] [--endpoint unix://...] [--delegate]
 * [-- FLAGS OF CRITEST]`
 *
 * Tests `podvm daemon`, alone or with a containerd as its delegate, or the runtime at `--endpoint`, with the public
 * suite for CRI runtimes. Needs root, the result of `podvm setup`, and a Go toolchain: a machine without one gets a
 * message, and nothing fails.
 */
const cache = '/var/cache/podvm-conformance';
const setupTimeoutMs = 30 * 60_000;
const restTimeoutMs = 30_000;
const spareDescriptors = 4;
const say = (text: string) => process.stderr.write(`conformance: ${text}\n`);

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      json: { type: 'string' },
      focus: { type: 'string' },
      skip: { type: 'string' },
      endpoint: { type: 'string' },
      delegate: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  });
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const { signal } = stop;
  const go = await goVersion(signal);
  if (go === undefined) {
    say('SKIPPED: this machine has no Go toolchain (`go`), with which the public suite is built');
    return 0;
  }
  await using undo = new AsyncDisposableStack();
  const { path: work, temporary } = undo.use(await makeWorkDirectory());
  say(`building crictl and critest ${version} with ${go}, unless they are there`);
  const tools = await buildCriTools(cache, signal);
  say('making and serving the images');
  const images = undo.use(await serveStandIns(cache, work, signal));
  const podvm = join(import.meta.dirname, '../../podvm');
  if (values.endpoint === undefined)
    await run(podvm, ['setup'], { signal, timeoutMs: setupTimeoutMs, env: callersEnv() });
  const delegate = values.delegate
    ? undo.use(
        await startDelegate({
          cache,
          work: join(work, 'containerd'),
          crictl: tools.crictl,
          registries: images.containerdDirectory,
          signal,
        }),
      )
    : undefined;
  const isWhole = values.focus === undefined && values.skip === undefined;
  // Before the node, whose last daemon is of this build and ends first.
  const another = isWhole && values.endpoint === undefined ? undo.use(await makeAnotherBuild()) : undefined;
  const node =
    values.endpoint === undefined
      ? undo.use(
          await startNode({
            podvm,
            crictl: tools.crictl,
            containersDirectory: images.containersDirectory,
            assetsRoot: process.env['PODVM_ROOT'] ?? '/var/lib/podvm',
            settings: delegate?.settings ?? {},
            signal,
          }),
        )
      : undefined;
  if (node === undefined) say(`${values.endpoint} must take its registries from ${images.containersDirectory}`);
  const list = parseExpectations(await readFile(join(import.meta.dirname, 'expected.json'), 'utf8'));
  const expected = delegate === undefined ? list : { ...list, refused: [] }; // a delegate runs what podvm refuses
  const suite = {
    critest: tools.critest,
    endpoint: node?.endpoint ?? values.endpoint ?? '',
    work,
    temporary,
    focus: values.focus,
    skip: [leftOutPattern(expected), values.skip].filter((pattern) => pattern !== undefined).join('|'),
    flags: positionals,
    signal,
  };
  const descriptorsBefore = await node?.descriptors();
  const specs = [...(await runCritest(suite))];
  if (isWhole) {
    specs.push(...(await overWebSocket(suite)));
    const replaceDaemon = node === undefined || another === undefined ? undefined : () => node.replace(another.program);
    const tour = { program: tools.crictl, endpoint: suite.endpoint, work, replaceDaemon, signal };
    specs.push(...(await tourWithCrictl(tour)));
    if (node !== undefined) specs.push(await restsAfter(node, descriptorsBefore ?? 0));
  }
  const verdict = judge(specs, expected, isWhole);
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(verdict, null, 2)}\n`);
  if (verdict.surprises.length > 0 && node !== undefined) process.stderr.write(await node.log());
  print(verdict);
  return verdict.surprises.length === 0 ? 0 : 1;
}

/** Runs the specs of streaming again over WebSocket: critest uses SPDY by default. */
async function overWebSocket(suite: SuiteOptions): Promise<readonly Spec[]> {
  const flags = [...suite.flags, '-websocket-exec', '-websocket-attach', '-websocket-portforward'];
  const specs = await runCritest({ ...suite, focus: 'Streaming', flags });
  return specs
    .filter(({ outcome, message }) => outcome !== 'skipped' || message !== '')
    .map((spec) => ({ ...spec, name: `${spec.name} (WebSocket)` }));
}

/** Waits until a daemon has no more descriptors than before the run, plus a few. Returns the result as a spec. */
async function restsAfter(node: ConformanceNode, before: number): Promise<Spec> {
  const name = 'podvm daemon holds no more descriptors after all of that than before';
  const startedMs = Date.now();
  for (;;) {
    const now = await node.descriptors();
    const ms = Date.now() - startedMs;
    if (now <= before + spareDescriptors) return { name, outcome: 'passed', message: '', ms };
    if (ms > restTimeoutMs) return { name, outcome: 'failed', message: `${before} before, ${now} after`, ms };
    await delay(500);
  }
}

function print({ passed, failed, skipped, refused, surprises }: Verdict): void {
  for (const surprise of surprises) say(surprise);
  say(
    `${passed} passed, ${failed} failed, ${skipped} skipped, ${refused} refused; ${surprises.length} not as expected.json says`,
  );
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof PodvmError) for (const line of error.tail) say(printable(line));
  say(messageOf(error));
  process.exitCode = 1;
}
