import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { goEnv, goVersion } from '../conformance/go-module.ts';

/*
 * `npm run posix`: the file-system tests of go-fuse (`posixtest`, pinned by go.sum beside this) on each mode of a volume
 * in a real machine, and on the host's file system. A machine without a Go toolchain gets a message, and nothing fails.
 */
const modes = ['tmpfs', 'scratch', 'block', 'share'] as const;
const blockBytes = 256 * 1024 ** 2;
/**
 * Two threads race in it, and it tells a followed link by the device and size of what it opened. On a host with one file
 * system for both it fails by chance.
 */
const unsteady = new Set(['OpenSymlinkRace']);
const fewestTests = 30;
const say = (text: string) => process.stderr.write(`posix: ${text}\n`);

const expectedSchema = v.record(v.string(), v.record(v.string(), v.pipe(v.string(), v.regex(/^(fail|skip): ./))));

/** Result of each test, by name: `pass`, `fail` or `skip`. */
function outcomesOf(output: string): Record<string, string> {
  const found = output.matchAll(/^ +--- (PASS|FAIL|SKIP): TestPosix\/(\w+) /gm);
  return Object.fromEntries([...found].map(([, how = '', name = '']) => [name, how.toLowerCase()]));
}

function podOf(work: string): string {
  const each = `for m in ${modes.join(' ')}; do echo "MODE $m"; POSIX_DIR=/$m /bin2/posix -test.v -test.timeout 2m 2>&1; done`;
  const hostPath = (path: string, type: string) => ({ hostPath: { path: join(work, path), type } });
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'posix', annotations: { 'podvm.dev/block-volumes': join(work, 'block.img') } },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      volumes: [
        { name: 'bin', ...hostPath('bin', 'Directory') },
        { name: 'share', ...hostPath('share', 'Directory') },
        { name: 'block', ...hostPath('block.img', 'File') },
        { name: 'scratch', emptyDir: {} },
        { name: 'tmpfs', emptyDir: { medium: 'Memory' } },
      ],
      containers: [
        {
          name: 'main',
          image: 'localhost/podvm/base:latest',
          command: ['sh', '-c', `${each}; true`],
          volumeMounts: [
            { name: 'bin', mountPath: '/bin2', readOnly: true },
            ...modes.map((mode) => ({ name: mode, mountPath: `/${mode}` })),
          ],
        },
      ],
    },
  });
}

/** Outcomes by mode, the host's among them. */
async function measure(work: string): Promise<Record<string, Record<string, string>>> {
  for (const name of ['bin', 'share', 'host']) await mkdir(join(work, name));
  const program = join(work, 'bin/posix');
  const flags = ['-c', '-mod=readonly', '-trimpath', '-buildvcs=false', '-o', program, '.'];
  const env = { ...goEnv(), CGO_ENABLED: '0' };
  await run('go', ['test', ...flags], { cwd: import.meta.dirname, env, timeoutMs: 600_000 });
  await writeFile(join(work, 'block.img'), '');
  await truncate(join(work, 'block.img'), blockBytes);
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', join(work, 'block.img')]);
  await writeFile(join(work, 'pod.yaml'), podOf(work));
  const onHost = await run(program, ['-test.v'], { env: { POSIX_DIR: join(work, 'host') }, okCodes: [0, 1] });
  const podvm = join(import.meta.dirname, '../../podvm');
  const root = process.env['PODVM_ROOT'];
  const path = process.env['PATH'] ?? '';
  const podEnv = { PATH: path, PODVM_BACKGROUND: 'off', ...(root === undefined ? {} : { PODVM_ROOT: root }) };
  const { stdout } = await run(podvm, ['run', join(work, 'pod.yaml')], { env: podEnv, timeoutMs: 600_000 });
  const parts = stdout.split(/^.*MODE (?=\w+$)/m).slice(1);
  const inPod = parts.map((part) => [part.split('\n')[0] ?? '', outcomesOf(part)] as const);
  return { host: outcomesOf(onHost.stdout), ...Object.fromEntries(inPod) };
}

const { values } = parseArgs({ options: { json: { type: 'string' } } });
if ((await goVersion(AbortSignal.timeout(60_000))) === undefined) {
  say('NOT RUN: there is no Go toolchain on this machine');
} else {
  const expected = v.parse(
    expectedSchema,
    JSON.parse(await readFile(join(import.meta.dirname, 'expected.json'), 'utf8')),
  );
  const work = await mkdtemp('/var/tmp/podvm-posix-');
  try {
    const found = await measure(work);
    const surprises = ['host', ...modes].flatMap((mode) => {
      const outcomes = Object.entries(found[mode] ?? {});
      if (outcomes.length < fewestTests) return [`${mode}: only ${outcomes.length} tests ran`];
      const unknown = Object.keys(expected[mode] ?? {}).filter((name) => found[mode]?.[name] === undefined);
      const stale = unknown.map((name) => `${mode} ${name}: expected, but there is no such test`);
      return stale.concat(
        outcomes.flatMap(([name, how]) => {
          const wanted = expected[mode]?.[name]?.slice(0, 4) ?? 'pass';
          return how === wanted || unsteady.has(name) ? [] : [`${mode} ${name}: expected ${wanted}, got ${how}`];
        }),
      );
    });
    if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ found, surprises }, null, 2)}\n`);
    for (const [mode, outcomes] of Object.entries(found)) {
      const count = (how: string) => Object.values(outcomes).filter((one) => one === how).length;
      say(`${mode}: ${count('pass')} passed, ${count('fail')} failed, ${count('skip')} skipped`);
    }
    for (const surprise of surprises) say(`SURPRISE ${surprise}`);
    process.exitCode = surprises.length > 0 ? 1 : 0;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
