import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { findLogins } from './user-logins.ts';

const never = new AbortController().signal;
const auth = (user: string, password = 'p') => Buffer.from(`${user}:${password}`).toString('base64');

/** The home of a user, with files by their path in it. */
async function openHome(files: Readonly<Record<string, unknown>>) {
  const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-home-'));
  const { path } = directory;
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return {
    path,
    find: async (images: readonly string[], environment: Readonly<Record<string, string>> = {}, authFile?: string) => {
      const user = {
        environment: { HOME: path, XDG_RUNTIME_DIR: join(path, 'run'), ...environment },
        uid: 0,
        ...(authFile === undefined ? {} : { authFile }),
      };
      return await findLogins(async () => images, user, never);
    },
    async program(name: string, script: string): Promise<void> {
      await writeFile(join(path, name), `#!/bin/sh\n${script}\n`);
      await chmod(join(path, name), 0o755);
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

const usersOf = ({ logins }: { readonly logins: readonly { registry: string; username?: string }[] }) =>
  Object.fromEntries(logins.map(({ registry, username }) => [registry, username]));

test('findLogins() returns logins of the named registries only', async () => {
  await using home = await openHome({
    'run/containers/auth.json': {
      auths: { 'r.example': { auth: auth('r', 'with:colon') }, 'other.example': { auth: auth('o') } },
    },
  });
  const { logins, warnings } = await home.find(['r.example/a:1', 'r.example/b', 'nginx', 'sub.r.example/c']);
  assert.deepEqual(logins, [{ registry: 'r.example', username: 'r', password: 'with:colon' }]);
  assert.deepEqual(warnings, []);
  const none = ['nginx', 'localhost/podvm/base', `sha256:${'0'.repeat(64)}`, 'No Reference', 'r.example.evil/a'];
  assert.deepEqual((await home.find(none)).logins, []);
});

test('findLogins() matches the longest part of a name, as containers-auth.json(5) says', async () => {
  const auths = Object.fromEntries(
    ['r.example', 'r.example/team', 'r.example/team/app', 'r.example/te'].map((key) => [key, { auth: auth(key) }]),
  );
  await using home = await openHome({ 'run/containers/auth.json': { auths } });
  for (const [image, key] of [
    ['r.example/team/app:1', 'r.example/team/app'],
    ['r.example/team/other', 'r.example/team'],
    ['r.example/teams/app', 'r.example'],
  ] as const) {
    assert.deepEqual(usersOf(await home.find([image])), { [key]: key });
  }
});

test('findLogins() recognises the names of Docker Hub, and registries that docker stores as URLs', async () => {
  const auths = {
    'https://index.docker.io/v1/': { auth: auth('hub') },
    'https://old.example/v2/': { username: 'old', password: 'p' },
    't.example': { identitytoken: 'token' },
  };
  await using home = await openHome({ '.docker/config.json': { auths } });
  const { logins } = await home.find(['nginx', 'old.example/a', 't.example/a']);
  assert.deepEqual(logins, [
    { registry: 'docker.io', username: 'hub', password: 'p' },
    { registry: 'old.example', username: 'old', password: 'p' },
    { registry: 't.example', identityToken: 'token' },
  ]);
});

test('findLogins() searches the files of podman and docker, and uses the first with a login', async () => {
  const names = ['run/containers/auth.json', '.config/containers/auth.json', '.docker/config.json'];
  const file = (user: string, ...registries: readonly string[]) => ({
    auths: Object.fromEntries(registries.map((name) => [name, { auth: auth(user) }])),
  });
  await using home = await openHome({
    [names[0] ?? '']: file('run', 'a.example'),
    [names[1] ?? '']: file('config', 'a.example', 'b.example'),
    [names[2] ?? '']: file('docker', 'a.example', 'b.example', 'c.example/team'),
    'mine.json': file('mine', 'a.example'),
    'docker/config.json': file('other', 'a.example'),
    'xdg/containers/auth.json': file('xdg', 'b.example'),
  });
  const images = ['a.example/x', 'b.example/x', 'c.example/team/x'];
  const found = { 'a.example': 'run', 'b.example': 'config', 'c.example/team': 'docker' };
  assert.deepEqual(usersOf(await home.find(images)), found);
  const xdg = { ...found, 'b.example': 'xdg' };
  assert.deepEqual(usersOf(await home.find(images, { XDG_CONFIG_HOME: join(home.path, 'xdg') })), xdg);
  const mine = join(home.path, 'mine.json');
  assert.deepEqual(usersOf(await home.find(images, { REGISTRY_AUTH_FILE: mine })), { 'a.example': 'mine' });
  assert.deepEqual(usersOf(await home.find(images, {}, mine)), { 'a.example': 'mine' });
  const docker = { DOCKER_CONFIG: join(home.path, 'docker') };
  assert.deepEqual(usersOf(await home.find(images, docker)), { 'a.example': 'other' });
  const both = { ...docker, REGISTRY_AUTH_FILE: mine };
  assert.deepEqual(usersOf(await home.find(images, both)), { 'a.example': 'mine' });
  const absent = join(home.path, 'absent.json');
  assert.deepEqual(await home.find(images, { REGISTRY_AUTH_FILE: absent }), { logins: [], warnings: [] });
  await assert.rejects(home.find(images, {}, absent), { kind: 'notFound', message: /auth file .*absent\.json/ });
});

test('findLogins() does not request the images for a user without logins', async () => {
  await using home = await openHome({ 'run/containers/auth.json': { auths: {} } });
  const environment = { HOME: home.path, XDG_RUNTIME_DIR: join(home.path, 'run') };
  const images = () => assert.fail('the files are parsed for nothing');
  assert.deepEqual(await findLogins(images, { environment, uid: 0 }, never), { logins: [], warnings: [] });
});

test('findLogins() warns of an invalid file without its text, and continues with the next', async () => {
  await using home = await openHome({ '.docker/config.json': { auths: { 'r.example': { auth: auth('r') } } } });
  const file = join(home.path, 'run/containers/auth.json');
  await mkdir(dirname(file), { recursive: true });
  for (const [text, why] of [
    ['hunter2', /the format of docker's config\.json/],
    [JSON.stringify({ auths: { 'r.example': 'hunter2' } }), /the format of/],
    [JSON.stringify({ auths: { 'r.example': { auth: ['hunter2'] } } }), /the format of/],
    [JSON.stringify({ auths: {}, credHelpers: { 'r.example': ['hunter2'] } }), /the format of/],
    [' '.repeat(1024 * 1024 + 1), /at most 1048576 bytes/],
  ] as const) {
    await writeFile(file, text);
    const { logins, warnings } = await home.find(['r.example/a']);
    assert.deepEqual(usersOf({ logins }), { 'r.example': 'r' });
    const [warning = '', ...more] = warnings;
    assert.deepEqual(more, []);
    assert.match(warning, why);
    assert.ok(warning.includes(file) && !warning.includes('hunter2'), warning);
  }
  await assert.rejects(home.find(['r.example/a'], {}, '/dev/zero'), { kind: 'notFound' });
  await assert.rejects(home.find(['r.example/a'], {}, home.path), { kind: 'notFound' });
});

test('findLogins() leaves entries without credentials out', async () => {
  const auths = {
    'a.example': {},
    'b.example': { auth: auth('') },
    'c.example': { auth: 'no base64' },
    '': { auth: auth('x') },
    ['__proto__']: { auth: auth('x') },
  };
  await using home = await openHome({ '.docker/config.json': { auths } });
  const { logins } = await home.find(['a.example/a', 'b.example/a', 'c.example/a']);
  assert.deepEqual(logins, []);
});

test("findLogins() asks docker's credential helpers, only for what they have", async () => {
  await using home = await openHome({
    '.docker/config.json': {
      auths: { 'https://index.docker.io/v1/': {}, 'plain.example': { auth: auth('plain') } },
      credsStore: 'store',
      credHelpers: { 'cloud.example': 'cloud', 'empty.example': 'empty' },
    },
  });
  const answer = '{"ServerURL":"%s","Username":"%s","Secret":"s3cret"}';
  await home.program('docker-credential-store', `read server; printf '${answer}' "$server" "$1 $server"`);
  await home.program('docker-credential-cloud', `printf '${answer}' x '<token>'`);
  await home.program('docker-credential-empty', 'echo credentials not found in native keychain; exit 1');
  const path = { PATH: `${home.path}:${process.env['PATH']}` };
  const images = ['nginx', 'plain.example/a', 'cloud.example/a', 'empty.example/a', 'unlisted.example/a'];
  assert.deepEqual(await home.find(images, path), {
    logins: [
      { registry: 'docker.io', username: 'get https://index.docker.io/v1/', password: 's3cret' },
      { registry: 'plain.example', username: 'plain', password: 'p' },
      { registry: 'cloud.example', identityToken: 's3cret' },
    ],
    warnings: [],
  });
});

test('findLogins() names a credential helper with an invalid answer', async () => {
  const helpers = { 'a.example': 'absent', 'b.example': 'failing', 'c.example': 'odd', 'd.example': '../../bin/sh' };
  await using home = await openHome({ '.docker/config.json': { credHelpers: { ...helpers, 'e.example': 'flood' } } });
  await home.program('docker-credential-failing', 'echo s3cret; exit 3');
  await home.program('docker-credential-odd', 'echo s3cret');
  await home.program('docker-credential-flood', 'head -c 1000000 /dev/zero');
  const images = ['a', 'b', 'c', 'd', 'e'].map((word) => `${word}.example/x`);
  const { logins, warnings } = await home.find(images, { PATH: `${home.path}:${process.env['PATH']}` });
  assert.deepEqual(logins, []);
  for (const [at, pattern] of [
    /^the login for a\.example is not used: docker-credential-absent .*no such program/,
    /docker-credential-failing .*code 3/,
    /docker-credential-odd .*Username and Secret/,
    /docker-credential-\.\.\/\.\.\/bin\/sh .*name/,
    /docker-credential-flood .*65536 bytes/,
  ].entries()) {
    assert.match(warnings[at] ?? '', pattern);
  }
  assert.ok(!warnings.join().includes('s3cret'));
});
