import assert from 'node:assert/strict';
import { readdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import * as v from 'valibot';
import { podDetailsSchema } from '#api/pods.ts';
import { run } from '#host/process/run.ts';
import { currentSchema, keyOf } from '#setup/setup.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode, ownParts } from './cli-node.ts';

const pod = (name: string) => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, "echo up; while :; do sleep 0.2; done"]
`;

const findingsSchema = v.object({
  findings: v.array(v.object({ name: v.string(), status: v.string(), detail: v.string() })),
});

/** Copies what the links to parts lead to, since machines of other tests may have that in use. */
async function copyParts({ root }: CliNode): Promise<void> {
  for (const name of await readdir(join(root, 'parts'))) {
    const own = join(root, 'parts', name);
    const shared = await realpath(own);
    await rm(own);
    await run('cp', ['-a', shared, own], { timeoutMs: 120_000 });
  }
}

/** Makes parts under other names current in one step, with a new generation, as an upgrade does. Returns their key. */
async function upgrade({ root }: CliNode): Promise<string> {
  const file = join(root, 'assets/current.json');
  const current = v.parse(currentSchema, JSON.parse(await readFile(file, 'utf8')));
  const generation = 'second';
  const renamed = (path: string) => path.replace(/-[0-9a-f]{16}(?=\/|$)/, '-5ec05ec05ec05ec0');
  const here = (path: string) => join(root, 'parts', path.slice(path.indexOf('/parts/') + '/parts/'.length));
  for (const part of current.parts) {
    const name = basename(part);
    await run('cp', ['-a', join(root, 'parts', name), here(renamed(part))], { timeoutMs: 120_000 });
  }
  const key = keyOf(generation, current.agent, current.guestKernel);
  const paths = ['sysroot', 'kernel', 'initramfs', 'modules', 'fileServer', 'plugin'] as const;
  const moved = Object.fromEntries(paths.map((name) => [name, here(renamed(current[name] ?? assert.fail(name)))]));
  const parts = current.parts.map((part) => here(renamed(part)));
  const next = { ...current, ...moved, key, generation, crunVersion: '1.21.99', parts };
  await writeFile(`${file}.next`, JSON.stringify(next));
  await rename(`${file}.next`, file);
  return key;
}

describe('an upgrade under a running daemon', { skip: await whyNoVm(), timeout: 900_000 }, () => {
  it('keeps old pods on their parts, gives new pods the new ones, and removes old parts after the last old pod', async () => {
    await using cli = await openCliNode({ isSetUp: true });
    await ownParts(cli);
    await copyParts(cli);
    const daemon = cli.start(['daemon']);
    await daemon.shows(/ info serving /, 120_000);
    const inspect = async (name: string) => {
      const { stdout } = await cli.type(['inspect', name]);
      return v.parse(podDetailsSchema, JSON.parse(stdout)).sandbox ?? assert.fail(stdout);
    };
    const says = async (name: string) => (await cli.type(['exec', name, '--', 'echo', 'here'])).stdout;
    const older = cli.start(['run', '-'], pod('older'));
    await older.shows(/up/, 180_000);
    const before = await inspect('older');
    const olds = (await readdir(join(cli.root, 'parts'))).sort();

    const key = await upgrade(cli);
    await daemon.shows(/ info new pods get the newer parts /, 300_000);
    const newer = cli.start(['run', '-'], pod('newer'));
    await newer.shows(/up/, 180_000);
    const after = await inspect('newer');
    assert.deepEqual([after.parts.key, after.parts.crun], [key, '1.21.99']);
    assert.ok(
      after.phases.some(({ name }) => name.includes('restore')),
      JSON.stringify(after.phases),
    );
    const still = await inspect('older');
    assert.deepEqual([still.parts, still.vmmPid, await says('older')], [before.parts, before.vmmPid, 'here\n']);
    const { findings } = v.parse(findingsSchema, JSON.parse((await cli.type(['doctor', '--json'])).stdout));
    const told = findings
      .filter(({ name }) => name === 'parts of pods')
      .map(({ status, detail }) => `${status}: ${detail}`);
    assert.deepEqual(told, [`warn: default/older runs on older ones: crun ${before.parts.crun}, now 1.21.99`]);
    const left = await readdir(join(cli.root, 'parts'));
    assert.deepEqual(
      olds.filter((name) => left.includes(name)),
      olds,
    ); // a pod uses them

    await cli.type(['stop', 'older', '--grace', '0']);
    await older.ended;
    const sysroot = olds.find((name) => name.startsWith('sysroot-')) ?? assert.fail('no sysroot');
    await daemon.shows(new RegExp(` info unused parts removed parts=.*${sysroot}`), 120_000);
    const last = await readdir(join(cli.root, 'parts'));
    assert.deepEqual(
      olds.filter((name) => last.includes(name)),
      [],
    );
    assert.equal(await says('newer'), 'here\n');
  });
});
