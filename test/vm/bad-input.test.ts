import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { assertNothingLeaked } from '../leaks.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, type Ended, openCliNode, type Typed } from './cli-node.ts';

const isRoot = process.getuid?.() === 0;
const image = 'localhost/podvm/base:latest';
/** One line with the failure and its reason, then one with the fix; no stack, nothing else. */
const whatAndFix = /^podvm: Cannot [^\n]+\n {2}fix: [A-Z][^\n]+\.\n$/;

/** A Pod whose one container prints `ran`; `more`: further lines of the container or the spec. */
const pod = (name: string, more = '', of = image) => `apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  restartPolicy: Never
  containers:
    - name: it
      image: ${of}
      imagePullPolicy: Never
      command: [sh, -c, echo ran]
${more}`;

/** Asserts that it failed with readable lines, none of them twice. */
function assertRefused({ code, stdout, stderr }: Ended, says: RegExp): void {
  assert.equal(code, 125, stderr);
  assert.equal(stdout, '');
  assert.match(stderr, says);
  assert.doesNotMatch(stderr, /^\s+at |\berror .*err=|node:internal/m, 'no stack, no log line');
  const lines = stderr.trimEnd().split('\n');
  assert.equal(new Set(lines.map((line) => line.replace(/^podvm: (\S+: )*/, ''))).size, lines.length, stderr);
}

/** Asserts that no process, mount, link or file of the node is left after its end. */
async function leave(cli: CliNode): Promise<void> {
  await cli[Symbol.asyncDispose]();
  await assertNothingLeaked({ directory: cli.root, ids: [] }, []);
}

async function assertNoPods(cli: CliNode): Promise<void> {
  const { code, stdout } = await cli.type(['ps']);
  assert.equal(code, 0);
  assert.equal(stdout.trim().split('\n').length, 1, stdout);
}

describe('podvm, given what it cannot use', { skip: isRoot ? false : 'needs root' }, () => {
  let cli: CliNode;
  before(async () => {
    cli = await openCliNode({ isSetUp: false });
  });
  after(async () => await leave(cli));

  it('a missing or unknown flag, command or argument: exit code 2 and where help is', async () => {
    for (const line of [['run'], ['run', '--nope', 'x'], ['nope'], ['exec', 'pod']]) {
      const { code, stdout, stderr } = await cli.type(line);
      assert.equal(code, 2, line.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, /^podvm: [^\n]+\n {2}fix: [^\n]+--help[^\n]*\n$/);
    }
  });

  it('no pod runs: a message with a fix, and ps is empty', async () => {
    const ended = await cli.type(['logs', 'hello']);
    assertRefused(ended, /^podvm: Cannot find pod hello\n {2}fix: .*podvm ps -a/);
    await assertNoPods(cli);
  });

  it('an unreadable file is reported before anything is set up', async () => {
    assertRefused(await cli.type(['run', '/nope.yaml']), /^podvm: Cannot read \/nope\.yaml: no such file\n/);
    assertRefused(await cli.type(['run', '/tmp']), /^podvm: Cannot read \/tmp: it is a directory\n {2}fix: /);
    assert.deepEqual(await readdir(cli.root), []);
  });

  it('a user other than root is refused before anything is made', async () => {
    // Mounted at another path: other users may not enter /root, in which a repository may be.
    const script =
      'mount --bind "$0" /mnt && exec setpriv --reuid=65534 --regid=65534 --clear-groups /mnt/podvm run "$1"';
    const env = { ...process.env, PODVM_ROOT: cli.root, PODVM_BACKGROUND: 'off' } as Record<string, string>;
    const args = ['--mount', 'sh', '-c', script, join(import.meta.dirname, '../..'), '/etc/hostname'];
    const { stderr } = await run('unshare', args, { env, okCodes: [125] });
    assert.match(stderr, whatAndFix);
    assert.match(stderr, /Cannot run pods as this user: [^]*fix: [^]*or run the command as root/);
  });

  it('a socket whose process was killed is ignored', async () => {
    const path = join(cli.root, 'podvm.sock');
    const listen = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
    const server = spawn(process.execPath, ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(server.stdout, 'data');
    server.kill('SIGKILL'); // it cannot remove its socket
    await once(server, 'close');
    assert.deepEqual(await readdir(cli.root), ['podvm.sock']);
    assertRefused(
      await cli.type(['exec', 'hello', '--', 'true']),
      /^podvm: Cannot reach podvm: no podvm serves this state directory\n {2}fix: .*podvm run/,
    );
    await assertNoPods(cli);
    await rm(path);
  });

  it('a state directory with too long a path is refused before anything is made', async () => {
    const long = join(cli.root, 'x'.repeat(120));
    const { code, stderr } = await cli.type(['--root', long, 'ps']);
    assert.equal(code, 125);
    assert.match(stderr, /^podvm: Cannot use the socket .*must have at most 107 bytes\n {2}fix: /);
  });

  it('nothing was left behind', async () => {
    assert.deepEqual(await readdir(cli.root), []);
  });
});

describe('podvm run, given a manifest it cannot use', { skip: await whyNoVm() }, () => {
  let cli: CliNode;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
  });
  after(async () => await leave(cli));
  const running = async (text: string) => await cli.type(['run', '-'], text);

  it('nothing in it', async () => {
    assertRefused(await running(''), /^podvm: Cannot run <stdin>: it contains no Pod\n {2}fix: /);
  });

  it('invalid YAML: file, line and column', async () => {
    assertRefused(await running('kind: Pod\nspec:\n\tcontainers: []\n'), /\n<stdin>:3:1: Tabs are not allowed/);
  });

  it('a wrong type, an unsupported volume, a duplicate name: file, line and field', async () => {
    const wrong = await running(pod('bad', '      env: {A: b}\n'));
    assertRefused(wrong, /\n<stdin>:11: spec\.containers\[0\]\.env: must be a list, got a mapping\n$/);
    const nfs = await running(pod('bad', '  volumes: [{name: v, nfs: {server: s, path: /}}]\n'));
    assertRefused(
      nfs,
      /\n<stdin>:11: spec\.volumes\[0\]\.nfs: is not supported yet; use persistentVolumeClaim, emptyDir/,
    );
    const twice = await running(`${pod('bad')}---\n${pod('bad')}`);
    assertRefused(twice, /\n<stdin>:14: metadata\.name: Pod default\/bad is given twice\n$/);
  });

  it('more memory than the node has: it runs with less, and a warning says so', async () => {
    const { code, stdout, stderr } = await running(pod('huge', '      resources: {limits: {memory: 900Gi}}\n'));
    assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
    assert.match(
      stderr,
      /^podvm: huge: LimitCut: The memory limit of pod default\/huge, 921600 MiB, is more than there is: it has \d+ MiB\n$/,
    );
  });

  it('more variables than a process can have: the variable, before a machine is made', async () => {
    const value = `      env: [{name: BIG, value: ${'x'.repeat(140_000)}}]\n`;
    assertRefused(
      await running(pod('bad', value)),
      /the variable BIG is too long \(E2BIG\)[^\n]*\n {2}fix: Put large values/,
    );
  });

  it('too little memory for any program: the minimum', async () => {
    const tiny = await running(pod('bad', '      resources: {limits: {memory: 100Ki}}\n'));
    assertRefused(tiny, /a memory limit must be at least \d+ bytes \(1Mi\)/);
  });

  it('a missing image: one message with a fix', async () => {
    const missing = await running(pod('bad', '', 'localhost/nope:1'));
    assertRefused(
      missing,
      /^podvm: bad\/it: Failed: Cannot use image localhost\/nope:1: [^\n]+\n {2}fix: [^\n]+podvm image/,
    );
    assert.match(missing.stderr, /\npodvm: pod bad ended with code 125\n$/);
  });

  it('an invalid image: a malformed digest, control characters in the name', async () => {
    for (const name of ['localhost/nope@sha256:abc', '"\\e[31m;rm -rf / ../..%00"']) {
      const ended = await running(pod('bad', '', name));
      assertRefused(ended, /image/);
      assert.equal(ended.stderr.includes('\u001b'), false, 'it must not reach the terminal');
    }
  });

  it('a misspelt field is reported with a suggestion, and the pod runs', async () => {
    const { code, stdout, stderr } = await running(pod('typo', '      workingdir: /tmp\n'));
    assert.match(
      stderr,
      /^podvm: warning: <stdin>:11: spec\.containers\[0\]\.workingdir: .*did you mean workingDir\?\n$/,
    );
    assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
  });

  it('no pod, sandbox or socket was left behind', async () => {
    await assertNoPods(cli);
    assert.deepEqual(await readdir(join(cli.root, 'sandboxes')), []);
    assert.equal((await readdir(cli.root)).includes('podvm.sock'), false);
  });
});

describe('podvm run, on a node that is not as it should be', { skip: await whyNoVm() }, () => {
  /** A pod on a node that `spoil` has changed. */
  async function runSpoiled(
    spoil: (root: string) => Promise<void>,
    check: (ended: Ended, cli: CliNode) => Promise<void>,
  ) {
    const cli = await openCliNode({ isSetUp: true });
    await using undo = new AsyncDisposableStack();
    undo.defer(async () => await leave(cli));
    await spoil(cli.root);
    if ((await run('findmnt', ['-n', cli.root], { okCodes: [0, 1] })).code === 0) {
      undo.defer(async () => void (await run('umount', [cli.root])));
    }
    await check(await cli.type(['run', '-'], pod('bad')), cli);
    await assertNoPods(cli);
    assert.equal((await readdir(cli.root)).includes('podvm.sock'), false);
  }

  it('a state directory that jailed machines cannot reach: the directory and a fix', async () => {
    await runSpoiled(
      (root) => chmod(root, 0o700),
      async (ended, { root }) => {
        assert.match(ended.stderr, whatAndFix);
        assertRefused(
          ended,
          new RegExp(`${root} is closed to other users, got mode 700\\n  fix: Run .chmod o\\+x ${root}`),
        );
      },
    );
  });

  it('a read-only state directory', async () => {
    const makeReadOnly = async (root: string) => {
      await run('mount', ['--bind', root, root]);
      await run('mount', ['-o', 'remount,bind,ro', root]);
    };
    await runSpoiled(makeReadOnly, async (ended, { root }) => {
      assert.match(ended.stderr, whatAndFix);
      assertRefused(ended, new RegExp(`state directory ${root}: its file system is read-only`));
    });
  });

  it('a full disk: how much is missing, and what uses it', async () => {
    const fill = async (root: string) => {
      const kept = `${root}.kept`;
      await rename(root, kept);
      await mkdir(root);
      await run('mount', ['-t', 'tmpfs', '-o', 'size=512k,mode=711', 'podvm-test', root]);
      await run('cp', ['-a', `${kept}/.`, root]);
      await rm(kept, { recursive: true });
    };
    await runSpoiled(fill, async (ended, { root }) => {
      assertRefused(ended, /needs \d+ free bytes, got \d+\n {2}fix: Free disk space: [^\n]+\n/);
      assert.deepEqual(await readdir(join(root, 'sandboxes')), []);
    });
  });

  it('missing QEMU: its expected path, and that set-up installs it', async () => {
    const takeAway = async (root: string) => {
      const file = join(root, 'assets/current.json');
      const sysroot = join(root, 'empty');
      await mkdir(join(sysroot, 'usr'), { recursive: true });
      const current = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
      await writeFile(file, JSON.stringify({ ...current, sysroot }));
    };
    await runSpoiled(takeAway, async (ended) => {
      assert.match(ended.stderr, whatAndFix);
      assertRefused(ended, /qemu-system-x86_64[^]*fix: Run `podvm setup/);
      return await Promise.resolve();
    });
  });

  it('an invalid index of images is put aside and reported, and the pod runs', async () => {
    const garble = async (root: string) => {
      await mkdir(join(root, 'images'));
      await writeFile(join(root, 'images/index.json'), 'xx');
    };
    await runSpoiled(garble, async ({ code, stdout, stderr }) => {
      assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
      assert.match(stderr, /index is damaged[^\n]*images\/index\.json\.damaged/);
      return await Promise.resolve();
    });
  });

  it('invalid records of set-up are made again from the existing parts', async () => {
    await runSpoiled(
      (root) => writeFile(join(root, 'assets/current.json'), 'xx'),
      async ({ code, stdout, stderr }) => {
        assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
        assert.doesNotMatch(stderr, /unpacking|building/);
        return await Promise.resolve();
      },
    );
  });

  it('unreadable remains of a sandbox are named and kept; the pod runs', async () => {
    const garble = async (root: string) => {
      await mkdir(join(root, 'sandboxes/sb-deadbeef'), { recursive: true });
      await writeFile(join(root, 'sandboxes/sb-deadbeef/sandbox.json'), '{"nonsense":true}');
    };
    await runSpoiled(garble, async ({ code, stdout, stderr }, { root }) => {
      assert.deepEqual({ code, stdout }, { code: 0, stdout: 'ran\n' });
      assert.match(stderr, /sb-deadbeef\/sandbox\.json is damaged/);
      assert.deepEqual(await readdir(join(root, 'sandboxes')), ['sb-deadbeef']);
    });
  });
});

describe('podvm, beside a pod that runs', { skip: await whyNoVm() }, () => {
  let cli: CliNode;
  let first: Typed;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    first = cli.start(['run', '-'], pod('steady').replace('echo ran', '"echo up; exec sleep 1000"'));
    await first.shows(/up/);
  });
  after(async () => await leave(cli));

  it('a pod of the same name is refused; the first one continues', async () => {
    const second = await cli.type(['run', '-'], pod('steady'));
    assertRefused(
      second,
      /^podvm: Cannot run pod default\/steady: a pod of that name is running\n {2}fix: Stop it with/,
    );
    assert.match((await cli.type(['ps'])).stdout, /steady +1\/1 +Running/);
  });

  it('a missing pod: a suggestion', async () => {
    const ended = await cli.type(['logs', 'stedy']);
    assertRefused(ended, /^podvm: Cannot find pod stedy\n {2}fix: Did you mean steady\? See `podvm ps -a`/);
  });

  it('a missing container: the existing ones', async () => {
    const ended = await cli.type(['exec', 'steady', '-c', 'zz', '--', 'true']);
    assertRefused(ended, /^podvm: Cannot find container zz in pod steady: it has it\n/);
  });

  it('a second node on the same state directory: the process that holds it', async () => {
    const ended = await cli.type(['daemon']);
    assertRefused(
      ended,
      new RegExp(`another podvm \\(process ${first.child.pid}\\) works in it\\n  fix: Use that one`),
    );
    assert.match((await cli.type(['ps'])).stdout, /steady +1\/1 +Running/);
  });
});
