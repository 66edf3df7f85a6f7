import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf, PodvmError } from '#base/errors.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { buildCriTools } from '../conformance/cri-tools.ts';
import { expectationsOf, find, judge, leftOutPattern, parseExpectations, type Spec } from '../conformance/report.ts';
import { runCritest } from '../conformance/run-critest.ts';
import { serveStandIns } from '../conformance/serve-stand-ins.ts';
import { makeWorkDirectory } from '../conformance/work-directory.ts';
import { openCliNode } from '../vm/cli-node.ts';
import { buildContainerd, isMinorVersion, newest } from './build-containerd.ts';
import { startContainerd } from './containerd-node.ts';
import { buildIntegrationSuite, runIntegrationSuite } from './integration-suite.ts';
import { suiteImages, suiteStandIns } from './suite-images.ts';

/*
 * A public suite against a containerd whose pods are podvm's, in the network namespace of the caller: see main.ts, which
 * has built the programs.
 */
const handler = 'podvm';
const servingTimeoutMs = 120_000;
const critestPause = 'registry.k8s.io/pause:3.9';
const say = (text: string) => process.stderr.write(`containerd: ${text}\n`);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      suite: { type: 'string', default: '' },
      cache: { type: 'string', default: '' },
      version: { type: 'string', default: newest },
      focus: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const { suite, cache, version, focus, json } = values;
  if ((suite !== 'critest' && suite !== 'integration') || !isMinorVersion(version))
    throw new PodvmError('invalid', `Cannot run the suite ${suite} with containerd ${version}`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const { signal } = stop;
  const list = parseExpectations(await readFile(join(import.meta.dirname, `${suite}-expected.json`), 'utf8'));
  const expected = expectationsOf(version, list);

  await using undo = new AsyncDisposableStack();
  const { path: work, temporary } = undo.use(await makeWorkDirectory());
  const programs = await buildContainerd(cache, signal, version);
  const tools = await buildCriTools(cache, signal);
  const isCritest = suite === 'critest';
  const images = undo.use(await serveStandIns(cache, work, signal, isCritest ? undefined : suiteStandIns));
  const cli = undo.use(await openCliNode({ isSetUp: true, pool: '1' }));
  const daemon = cli.start(['daemon']);
  await daemon.shows(/ info serving /, servingTimeoutMs);
  const place = join(work, 'containerd');
  await mkdir(place);
  const revivesAs = `ctd-${process.pid}`;
  const containerd = undo.use(
    await startContainerd({
      programs,
      work: place,
      shimSocket: join(cli.root, 'shim.sock'),
      registries: images.containerdDirectory,
      pauseImage: isCritest ? critestPause : suiteImages.Pause,
      ...(isCritest ? {} : { revivesAs, handler, setting: 'drain_exec_sync_io_timeout = "10s"' }), // a test is about it
    }),
  );
  const { endpoint } = containerd;
  const tidy = async () => {
    const args = ['--config', '/dev/null', '-t', '60s', '-r', endpoint, 'rmp', '--force', '--all'];
    await run(tools.crictl, args, { okCodes: 'any' });
  };
  undo.defer(tidy);
  const isFocused = (name: string) => focus === undefined || new RegExp(focus).test(name);
  const leftOut = leftOutPattern(expected);
  const specs: readonly Spec[] = isCritest
    ? await runCritest({
        ...{ critest: tools.critest, endpoint, work, temporary, focus, signal },
        skip: leftOut,
        flags: ['-runtime-handler', handler],
      })
    : await runIntegrationSuite({
        ...{
          program: await buildIntegrationSuite(cache, signal, version),
          endpoint,
          containerdName: revivesAs,
          handler,
        },
        ...{ work, temporary, tidy, say, signal },
        path: `${place}:${dirname(programs.containerd)}:${dirname(programs.runc)}:${defaultEnv()['PATH'] ?? ''}`,
        runs: (name) => isFocused(name) && find(expected.leftOut, name) === undefined,
      });
  const verdict = judge(specs, expected, focus === undefined);
  if (json !== undefined) await writeFile(json, `${JSON.stringify(verdict, null, 2)}\n`);
  for (const surprise of verdict.surprises) say(surprise);
  const { passed, failed, skipped, refused, surprises } = verdict;
  say(`${suite}: ${passed} passed, ${failed} failed, ${skipped} skipped, ${refused} failed as listed`);
  if (surprises.length === 0) return;
  process.stderr.write(`${daemon.stderr().split('\n').slice(-60).join('\n')}\n`);
  throw new PodvmError('internal', `${surprises.length} results are not as ${suite}-expected.json says`);
}

try {
  await main();
} catch (error) {
  say(`FAILED: ${messageOf(error)}`);
  process.exitCode = 1;
}
