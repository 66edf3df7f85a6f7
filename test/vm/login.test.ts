import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { poll } from '#host/wait.ts';
import { makeBaseLayout } from '#image/source/base-image.ts';
import { startSilentServer } from '../images/bad-registries.ts';
import { pidsThatMount, sysroot } from '../images/image-tree.ts';
import { type Registry, startRegistry, user } from '../images/registry.ts';
import { type CliNode, openCliNode, repo, type Typed } from './cli-node.ts';
import { filesOf, filesWith, processesWith } from './find-text.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const password = `p4ss${randomBytes(12).toString('hex')}`;
const auth = Buffer.from(`${user}:${password}`).toString('base64');
/** The password as text, and as auth files have it. */
const forms = [password, auth.replace(/=+$/, '')];
const network = ['--network', 'none'];

describe('podvm login', { skip, timeout: 600_000 }, () => {
  let cli: CliNode;
  let registry: Registry;
  let work: string;
  let image: string;
  /** Serves all other commands, so that it is the node. */
  let serving: Typed;

  /** A command line of a user, whose home is a directory below `work`. */
  const start = (name: string, args: readonly string[], input = '', environment: readonly string[] = []) => {
    const home = join(work, name);
    const others = ['REGISTRY_AUTH_FILE', 'DOCKER_CONFIG', 'XDG_CONFIG_HOME'].flatMap((variable) => ['-u', variable]);
    const own = [`HOME=${home}`, `XDG_RUNTIME_DIR=${home}`, ...environment];
    return cli.start([...others, ...own, join(repo, 'podvm'), ...args], input, 'env');
  };
  const as = async (...given: Parameters<typeof start>) => await start(...given).ended;
  const login = async (name: string, word: string) =>
    await as(name, ['login', '-u', user, '--password-stdin', registry.name], `${word}\n`);
  const run = ['run', '--rm', ...network, '--pull', 'always'];
  const assertNowhere = async () => {
    assert.deepEqual(await filesWith(forms, await filesOf(cli.root)), []);
    assert.deepEqual(await processesWith(forms), []);
    for (const form of forms) assert.ok(!`${serving.stdout()}${serving.stderr()}`.includes(form));
  };

  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    work = await mkdtemp('/var/tmp/podvm-login-');
    for (const name of ['alice', 'bob']) await mkdir(join(work, name));
    registry = await startRegistry({ auth: true, password });
    await registry.push(await makeBaseLayout(await sysroot(), work, AbortSignal.timeout(60_000)), 'team/base:1');
    image = `${registry.name}/team/base:1`;
    const script = 'echo up; while :; do sleep 0.1; done';
    const base = 'localhost/podvm/base';
    serving = cli.start(['--log-level', 'debug', 'run', '--name', 'first', ...network, base, 'sh', '-c', script]);
    await serving.shows(/up\n/);
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await rm(work, { recursive: true });
  });

  it('reports a wrong password, and writes nothing', async () => {
    const { code, stdout, stderr } = await login('alice', 'wrong');
    assert.deepEqual([code, stdout], [125, '']);
    assert.match(
      stderr,
      /^podvm: Cannot log in to localhost:\d+: the registry does not accept .*\n {2}fix: Check both/,
    );
    assert.deepEqual(await readdir(join(work, 'alice')), []);
  });

  it('lets its user run and pull private images', async () => {
    assert.match((await as('alice', [...run, image, 'true'])).stderr, /fix: .*`podvm login`/);
    const { code, stdout, stderr } = await login('alice', password);
    assert.deepEqual([code, stdout], [0, 'Login Succeeded!\n'], stderr);
    const file = join(work, 'alice/containers/auth.json');
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.ok((await readFile(file, 'utf8')).includes(auth));
    const ran = await as('alice', [...run, image, 'echo', 'done']);
    assert.deepEqual([ran.code, ran.stdout], [0, 'done\n'], ran.stderr);
    const pod = `{apiVersion: v1, kind: Pod, metadata: {name: file}, spec: {restartPolicy: Never, containers: [{name: c, image: "${image}", imagePullPolicy: Always, command: [echo, of a file]}]}}`;
    const ofFile = await as('alice', ['run', '--rm', ...network, '-'], pod);
    assert.deepEqual([ofFile.code, ofFile.stdout], [0, 'of a file\n'], ofFile.stderr);
    const pulled = await as('alice', ['image', 'pull', image]);
    assert.deepEqual([pulled.code, pulled.stdout], [0, `${image}\n`], pulled.stderr);
  });

  it('is not used for other users of the node', async () => {
    for (const args of [
      [...run, image, 'true'],
      ['image', 'pull', image],
    ]) {
      const { code, stderr } = await as('bob', args);
      assert.equal(code, 125, stderr);
      assert.match(stderr, /the registry does not accept the credentials, or requires some/);
    }
    const file = join(work, 'alice/containers/auth.json');
    const given = await as('bob', ['image', 'pull', '--authfile', file, image]);
    assert.deepEqual([given.code, given.stdout], [0, `${image}\n`], given.stderr);
    const environment = [`REGISTRY_AUTH_FILE=${file}`];
    assert.equal((await as('bob', [...run, image, 'true'], '', environment)).code, 0);
  });

  it('holds for restarts of the container, and is in no file, process or output of the node', async () => {
    const script = 'echo up; while :; do sleep 0.1; done';
    const flags = ['--name', 'keeper', ...network, '--pull', 'always', '--restart', 'always'];
    const keeper = start('alice', ['--log-level', 'debug', 'run', ...flags, image, 'sh', '-c', script]);
    await keeper.shows(/up\n/);
    assert.equal((await cli.type(['kill', 'keeper'])).code, 0);
    await keeper.shows(/up\n[^]*up\n/);
    await assertNowhere();
    for (const command of [['inspect', 'keeper'], ['describe', 'keeper'], ['logs', 'keeper'], ['events']]) {
      const { stdout, stderr } = await cli.type(command);
      for (const form of forms) assert.ok(!`${stdout}${stderr}`.includes(form), command.join(' '));
    }
    assert.equal((await cli.type(['stop', '--grace', '0', 'keeper'])).code, 0);
    await keeper.ended;
    for (const form of forms) assert.ok(!`${keeper.stdout()}${keeper.stderr()}`.includes(form));
    const again = await as('bob', ['start', 'keeper']);
    assert.equal(again.code, 0, again.stderr); // the node has it in memory with the pod
    assert.equal((await cli.type(['rm', '-f', 'keeper'])).code, 0);
    await assertNowhere();
  });

  it('is in no file or process while skopeo has it', async () => {
    await using silent = await startSilentServer();
    const file = join(work, 'silent.json');
    await writeFile(file, JSON.stringify({ auths: { [silent.name]: { auth } } }));
    const pulling = start('bob', ['image', 'pull', `${silent.name}/a:1`], '', [`REGISTRY_AUTH_FILE=${file}`]);
    const inJail = async () => {
      for (const pid of await pidsThatMount(cli.root)) {
        const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
        if (name === 'skopeo\n') return pid;
      }
      return undefined;
    };
    const pid = await poll(inJail, { everyMs: 20, signal: AbortSignal.timeout(60_000) });
    // Else the search would prove nothing.
    assert.ok((await readFile(`/proc/${pid ?? assert.fail('no skopeo')}/root/tmp/auth.json`, 'utf8')).includes(auth));
    await assertNowhere();
    pulling.child.kill('SIGINT');
    await pulling.ended;
  });

  it('is over after podvm logout', async () => {
    const { code, stderr } = await as('alice', ['logout', registry.name]);
    assert.equal(code, 0, stderr);
    assert.ok(!(await readFile(join(work, 'alice/containers/auth.json'), 'utf8')).includes(auth));
    const ran = await as('alice', [...run, image, 'true']);
    assert.equal(ran.code, 125);
    assert.match(ran.stderr, /the registry does not accept the credentials, or requires some/);
    const again = await as('alice', ['logout', registry.name]);
    assert.equal(again.code, 125);
    assert.match(again.stderr, /^podvm: Cannot log out of localhost:\d+: there is no login\n {2}fix: /);
  });
});
