import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { Command } from 'commander';
import { parse } from 'yaml';
import { acceptBooleanValues } from '../boolean-values.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { runOptions, type RunFlags } from './run-options.ts';
import { planRun } from './run-plan.ts';

let directory: string;
let web: string;
let db: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'podvm-plan-'));
  web = join(directory, 'web.yaml');
  db = join(directory, 'db.yaml');
  await writeFile(web, 'kind: Pod # web\n');
  await writeFile(db, 'kind: Pod # db\n');
  await writeFile(join(directory, 'vars'), 'ONE=1\n');
});
after(async () => await rm(directory, { recursive: true }));

// SAFE: as much of them as a plan uses
const terminal = { stdin: Readable.from([Buffer.from('kind: Pod # typed\n')]) } as unknown as Terminal;

/** The plan of `podvm run` with these words, as commander reads them. */
async function plan(...line: readonly string[]) {
  const command = new Command('run').argument('[image]').argument('[command...]').passThroughOptions().exitOverride();
  for (const option of runOptions) command.addOption(option);
  acceptBooleanValues(command, line);
  command.configureOutput({ writeErr: () => undefined }).parse(line, { from: 'user' });
  return await planRun(command.args, command.opts<RunFlags>(), { command, terminal, environment: {} });
}
const textsOf = async (...line: readonly string[]) => (await plan(...line)).files.map(({ text }) => text);

describe('planRun()', () => {
  it('reads files, with options of every run between them', async () => {
    const { files, network, verbose, input } = await plan(web, '--network', 'none', db, '--verbose', '--rm');
    assert.deepEqual(files, [
      { name: web, text: 'kind: Pod # web\n' },
      { name: db, text: 'kind: Pod # db\n' },
    ]);
    assert.deepEqual([network, verbose, input], ['none', true, undefined]);
    assert.deepEqual(await textsOf('-'), ['kind: Pod # typed\n']);
    assert.deepEqual(await textsOf('-f', web, '--network', 'none', '-f', db), [
      'kind: Pod # web\n',
      'kind: Pod # db\n',
    ]);
    assert.deepEqual(await textsOf('-f', directory), ['kind: Pod # db\n', 'kind: Pod # web\n']);
  });

  it('makes the Pod of an image, and leaves options of its command unchanged', async () => {
    const { files, network, input } = await plan('--network', 'none', '-i', 'busybox', 'ls', '--network', '-f', web);
    const pod = parse(files[0]?.text ?? '') as { spec: { containers: { args: string[] }[] } };
    assert.deepEqual(pod.spec.containers[0]?.args, ['ls', '--network', '-f', web]);
    assert.deepEqual([network, input], ['none', { takesInput: true, hasTerminal: false }]);
  });

  it('prints long words on one line, without YAML’s folding', async () => {
    const word = 'word '.repeat(100);
    const [text = ''] = await textsOf('--dry-run', 'busybox', 'echo', word, '- : # "', '');
    const pod = parse(text) as { spec: { containers: { args: string[] }[] } };
    assert.deepEqual(pod.spec.containers[0]?.args, ['echo', word, '- : # "', '']);
    assert.ok(text.includes(word));
    assert.throws(() => JSON.parse(text) as unknown);
  });

  it('sends JSON, of which errors name the lines that --dry-run -o json prints', async () => {
    const words = ['busybox', 'echo', '\u007f\u2028\ud800 \n: # "'];
    const [sent = ''] = await textsOf(...words);
    assert.equal((JSON.parse(sent) as { kind: string }).kind, 'Pod');
    assert.deepEqual(await textsOf('--dry-run', '-o', 'json', ...words), [sent]);
  });

  it('reads env files, and checks that paths of --mount exist', async () => {
    const [text = ''] = await textsOf('--dry-run', '--env-file', join(directory, 'vars'), 'busybox');
    assert.match(text, /name: ONE\n +value: "1"\n/);
    await assert.rejects(plan('--env-file', join(directory, 'none'), 'busybox'), {
      message: /none: no such file$/,
      fix: 'Give --env-file a readable file of variables.',
    });
    await assert.rejects(plan('--env-file', '/dev/zero', 'busybox'), {
      message: /^Cannot read \/dev\/zero: it must have at most \d+ bytes$/,
      fix: 'Give --env-file a readable file of variables.',
    });
    await textsOf('--mount', `type=bind,source=${directory},target=/x`, 'busybox');
    await assert.rejects(plan('--mount', `type=bind,source=${directory}/none,target=/x`, 'busybox'), {
      kind: 'notFound',
      message: /^Cannot use --mount: the host has no .*\/none$/,
    });
  });

  it('refuses flags that describe a Pod before and after a file', async () => {
    for (const line of [
      ['--cpus', '2', web],
      [web, '--cpus', '2'],
      ['--cpus', '2', '-f', web],
    ])
      await assert.rejects(plan(...line), { message: `Cannot use --cpus with ${web}: the file describes the Pod` });
    await assert.rejects(plan(web, '--init'), { message: /^Cannot use --init: / });
    await assert.rejects(plan('--dry-run', web), { message: /^Cannot use --dry-run with / });
    await assert.rejects(plan(web, '--bogus'), { code: 'commander.unknownOption' });
  });

  it('refuses a command line that names nothing, two kinds of things, or -o without --dry-run', async () => {
    for (const [line, message] of [
      [['--rm'], /missing required argument 'image'/],
      [['-f', web, 'busybox'], /-f names what to run, and so does 'busybox'/],
      [[web, '-f', db], /-f names what to run, and so does '.*web.yaml'/],
      [['-d', web, '--no-daemon'], /'--no-daemon' cannot be used with option '-d, --detach'/],
      [['-o', 'json', 'busybox'], /-o is the form of --dry-run/],
    ] as const)
      await assert.rejects(plan(...line), { name: 'CommanderError', message });
  });

  it('accepts options of the run before and after a file', async () => {
    for (const line of [
      ['-d', '--rm', web],
      [web, '-d', '--rm'],
      ['-d', '--rm', 'busybox'],
    ]) {
      const { detach, removeAtEnd } = await plan(...line);
      assert.deepEqual([detach, removeAtEnd], [true, true]);
    }
  });

  it('takes the last of the values of a flag before and after a file', async () => {
    for (const [line, expected] of [
      [
        ['--rm', web, '--rm=false'],
        [false, false],
      ],
      [
        ['--rm=false', web, '--rm'],
        [false, true],
      ],
      [
        ['-d', web, '--detach=false', db],
        [false, false],
      ],
      [
        ['--detach', web, '-d=false', db, '-d=true'],
        [true, false],
      ],
      [
        ['-d', web, '--detach=false', db, '--no-daemon'],
        [false, false],
      ],
    ] as const) {
      const { detach, removeAtEnd } = await plan(...line);
      assert.deepEqual([detach, removeAtEnd], expected, line.join(' '));
    }
    const { detach, removeAtEnd, flags } = await plan('--no-daemon', 'busybox');
    assert.deepEqual([detach, removeAtEnd, flags.daemon], [false, false, false]);
    await plan('-dit', 'busybox'); // needs no terminal
  });

  it('refuses a missing terminal before anything starts', async () => {
    await assert.rejects(plan('-it', 'busybox'), { message: /^Cannot give the container a terminal/, fix: 'Omit -t.' });
    assert.equal((await plan('-it', '--dry-run', 'busybox')).input?.hasTerminal, true);
  });
});
