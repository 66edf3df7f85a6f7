import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf, PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import { makeBaseLayout } from '#image/source/base-image.ts';
import { buildCriTools } from '../conformance/cri-tools.ts';
import { DebianFiles } from '../conformance/debian-files.ts';
import { goVersion } from '../conformance/go-module.ts';
import { Crictl } from '../conformance/crictl.ts';
import { makeWorkDirectory } from '../conformance/work-directory.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { type CliNode, openCliNode, repo } from '../vm/cli-node.ts';
import { buildContainerd, debianContainerd, isMinorVersion, modules, newest } from './build-containerd.ts';
import { startContainerd, testVersion } from './containerd-node.ts';
import { tourCtr } from './ctr-tour.ts';
import { tourDelegate } from './delegate-tour.ts';
import { buildIntegrationSuite } from './integration-suite.ts';
import { baseImage, briefImage, layeredImage, pauseImage } from './pod.ts';
import { tour } from './tour.ts';

/*
 * `npm run containerd [-- --version MINOR | --debian] [-- --k3s] [-- --delegate | --suite critest|integration [--json FILE]]
 * [-- --focus RE]`: a real containerd, the newest, another one that can be built or that of Debian, runs pods with podvm
 * beside pods with runc; then it is the delegate of podvm's own CRI, or with `--delegate` only that. `--focus` walks only
 * the first tour's steps whose titles match, or runs only the suite's tests whose names match. With `--k3s`, podvm is
 * installed in it as if it were that of k3s. With `--suite`, a public suite judges pods of podvm instead. Needs root, the
 * result of `podvm setup`, and a Go toolchain: a machine without one gets a message, and nothing fails.
 */
const cache = '/var/cache/podvm-conformance';
/** Timeout of a start, which first builds the agent if that of this checkout differs from that of set-up. */
const servingTimeoutMs = 120_000;
const say = (text: string) => process.stderr.write(`containerd: ${text}\n`);

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const { signal } = stop;
  const go = await goVersion(signal);
  if (go === undefined) {
    say('SKIPPED: this machine has no Go toolchain (`go`), with which containerd is built');
    return;
  }
  const { values } = parseArgs({
    options: {
      version: { type: 'string', default: newest },
      debian: { type: 'boolean', default: false },
      delegate: { type: 'boolean', default: false },
      k3s: { type: 'boolean', default: false },
      suite: { type: 'string' },
      focus: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const { version, k3s: isK3s } = values;
  if (!isMinorVersion(version)) {
    throw new PodvmError(
      'invalid',
      `Cannot build containerd ${version}: expected ${Object.keys(modules).join(' or ')}`,
    );
  }
  const which = values.debian ? 'that of Debian' : modules[version].version;
  say(`getting containerd (${which}) and building crictl with ${go}, unless they are there`);
  const programs = values.debian
    ? await debianContainerd(cache, signal)
    : await buildContainerd(cache, signal, version);
  say(`using containerd ${programs.version}`);
  const { crictl: program } = await buildCriTools(cache, signal);
  const { suite } = values;
  if (suite === 'integration') await buildIntegrationSuite(cache, signal, version);
  if (suite !== undefined) await DebianFiles.unpack(cache, signal);

  await using undo = new AsyncDisposableStack();
  const netns = `podvm-ctd-${process.pid}`;
  await run('ip', ['netns', 'add', netns]);
  undo.defer(async () => void (await run('ip', ['netns', 'delete', netns])));
  await run('ip', ['-netns', netns, 'link', 'set', 'lo', 'up']);
  if (suite !== undefined) {
    await runSuiteIn(netns, { suite, version, cache, focus: values.focus, json: values.json });
    return;
  }
  const { path: work } = undo.use(await makeWorkDirectory());
  const inNetns = async (command: string) => {
    const script = join(work, basename(command));
    await writeFile(script, `#!/bin/sh\nexec nsenter --net=/run/netns/${netns} ${command} "$@"\n`);
    await chmod(script, 0o755);
    return script;
  };
  const cli = undo.use(await openCliNode({ isSetUp: true, podvm: await inNetns(join(repo, 'podvm')), pool: '1' }));
  const settings = join(work, 'podvm.yaml');
  await writeFile(settings, `delegate: unix://${join(work, 'containerd.sock')}\n`);
  const begin = async () => {
    const started = cli.start(['daemon', '--config', settings]);
    await started.shows(/ info serving /, servingTimeoutMs);
    return started;
  };
  const fetchIn = async (url: string) => {
    const script = `process.stdout.write(await (await fetch(${JSON.stringify(url)})).text())`;
    const argv = [`--net=/run/netns/${netns}`, process.execPath, '--input-type=module', '-e', script];
    return (await run('nsenter', argv, { timeoutMs: 20_000 })).stdout;
  };
  let daemon = await begin();
  const replaceDaemon = async (how: 'SIGKILL' | 'SIGTERM', meanwhile?: () => Promise<void>) => {
    daemon.child.kill(how);
    await daemon.ended;
    await meanwhile?.();
    daemon = await begin();
  };
  const shimSocket = join(cli.root, 'shim.sock');
  const containerd = undo.use(await startContainerd({ programs, work, netns, shimSocket, isK3s, pauseImage }));
  const podvm = { shimSocketPath: shimSocket, version: testVersion };
  const images = await makeImages(work, signal);
  for (const image of images) await containerd.ctr('images', 'import', image);
  const inside = await inNetns(program); // the streams are at 127.0.0.1
  const direct = new Crictl(inside, containerd.endpoint, signal);
  const crictl = new Crictl(inside, `unix://${join(cli.root, 'cri.sock')}`, signal);
  try {
    const isNewer = !programs.version.startsWith('1.');
    const type: CliNode['type'] = (args, input) => cli.type(args, input);
    const { root } = cli;
    const site = { containerd, isNewer, isK3s, isWhole: !values.debian, work, root, say, replaceDaemon, type };
    const focus = values.focus === undefined ? undefined : new RegExp(values.focus);
    if (!values.delegate) {
      await tour({ ...site, podvm, crictl: direct, fetch: fetchIn, focus });
      if (focus !== undefined) return;
      await tourCtr({ ...site, image: images[0], records: join(cli.root, 'shim/tasks') });
    }
    const place = join(work, 'delegate');
    await mkdir(place);
    await runBaseImage(cli);
    await tourDelegate({ ...site, crictl, direct, work: place, replaceDaemon: () => replaceDaemon('SIGTERM') });
  } catch (error) {
    process.stderr.write(
      `${(await containerd.log())
        .split('\n')
        .filter((line) => /level=(?:error|warn)/.test(line))
        .slice(-15)
        .join('\n')}\n`,
    );
    process.stderr.write(daemon.stderr().split('\n').slice(-40).join('\n'));
    throw error;
  }
  say('passed');
}

/** Runs a public suite in a network namespace: its registry, daemons and clients use loopback. */
async function runSuiteIn(netns: string, options: Readonly<Record<string, string | undefined>>): Promise<void> {
  const flags = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]));
  const script = join(import.meta.dirname, 'run-suite.ts');
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, process.execPath, script, ...flags], {
    stdio: 'inherit',
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new PodvmError('internal', `The suite ended with ${code ?? 'a signal'}`);
}

/** The first pod of podvm that uses the base image makes it. */
async function runBaseImage(cli: CliNode): Promise<void> {
  const { code, stderr } = await cli.type(['run', baseImage, 'true']);
  assert.equal(code, 0, stderr);
}

/** Makes files of the base image, and of the images of runc's pods, of two layers and of a layer of its own. */
async function makeImages(work: string, signal: AbortSignal): Promise<readonly [base: string, others: string]> {
  const directory = join(work, 'images');
  await mkdir(directory);
  const base = await makeBaseLayout(await sysroot(), directory, signal);
  const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
  const program = (name: string): TarSpec => ({ name: `bin/${name}`, content: busybox, mode: 0o755 });
  const layers = [
    [program('sh'), program('sleep'), program('cat'), { name: 'gone', content: 'lower' }],
    [{ name: '.wh.gone' }, { name: 'added', content: 'upper' }],
  ];
  const others = join(directory, 'others');
  await writeLayout(others, [
    { name: pauseImage, layers, config: { config: { Cmd: ['/bin/sleep', '1000000'] } } },
    { name: layeredImage, layers, config: { config: { Env: ['PATH=/bin'] } } },
    {
      name: briefImage,
      layers: [[program('sh'), program('cat'), { name: 'brief', content: 'brief' }]],
      config: { config: { Env: ['PATH=/bin'] } },
    },
  ]);
  const files = [join(work, 'base.tar'), join(work, 'others.tar')] as const;
  await run('tar', ['-C', base, '-cf', files[0], '.']);
  await run('tar', ['-C', others, '-cf', files[1], '.']);
  return files;
}

try {
  await main();
} catch (error) {
  say(`FAILED: ${messageOf(error)}`);
  process.exitCode = 1;
}
