import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import * as v from 'valibot';
import { WebSocketServer } from 'ws';
import { type DiskUsage, diskUsageSchema } from '#api/disk-usage.ts';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import { runProgram } from './program.ts';
import type { ProgramParts } from './program-parts.ts';
import type { Terminal } from './terminal/terminal.ts';
import { foreignWords } from './foreign-words.ts';

const orphan = { namespace: 'shop', name: 'web', pid: 77, createdAt: '2026-01-02T03:04:05.000Z' };

/** A program without a running podvm, and its output. */
function openProgram(change: Partial<ProgramParts> = {}) {
  const said = { stdout: '', stderr: '' };
  const signals = new EventEmitter();
  const outputGone = new AbortController();
  const streamOf = (name: 'stdout' | 'stderr') =>
    new PassThrough().on('data', (text: Buffer) => {
      said[name] += text.toString();
    }) as unknown as NodeJS.WriteStream; // SAFE: as much of one as commands use
  const terminal: Terminal = {
    stdin: new PassThrough() as unknown as NodeJS.ReadStream, // SAFE: as above
    stdout: streamOf('stdout'),
    stderr: streamOf('stderr'),
    hasColour: false,
    outputGone: outputGone.signal,
  };
  const never = () => Promise.reject(new PodvmError('internal', 'not to be called'));
  const parts: ProgramParts = {
    terminal,
    signals,
    keepsHangUp: false,
    leave: () => undefined,
    environment: {},
    checkManifests: () => Promise.resolve([]),
    namedImages: never,
    userLogins: () => Promise.resolve({ logins: [], warnings: [] }),
    login: never,
    logout: never,
    socketPath: () => '/nowhere/podvm.sock',
    ensureServed: never,
    serveLeftPods: () => Promise.resolve(),
    knownPods: () =>
      Promise.resolve({ socketPath: '/nowhere/podvm.sock', [Symbol.asyncDispose]: () => Promise.resolve() }),
    orphans: () => Promise.resolve([]),
    endOrphans: () => Promise.resolve([]),
    setup: never,
    install: never,
    uninstall: never,
    daemon: never,
    doctor: never,
    supportBundle: never,
    diskUsage: never,
    serveDashboard: never,
    version: '1.2.3',
    versions: () => Promise.resolve({ podvm: '1.2.3', wire: 2, qemu: undefined }),
    ...change,
  };
  const { stdin } = terminal;
  return { type: (...words: readonly string[]) => runProgram(words, parts), said, signals, outputGone, stdin };
}

describe('podvm completion', () => {
  it('knows every command, of which others build only themselves', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('completion', 'bash'), 0);
    for (const name of ['run', 'describe', 'image', 'uninstall'])
      assert.match(said.stdout, new RegExp(`\\b${name}\\b`));
  });
});

describe('podvm version', () => {
  it('lists the parts of this program, as text and as JSON', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('version'), 0);
    assert.equal(said.stdout, 'podvm   1.2.3\nwire    2\nqemu    not set up\n');
    said.stdout = '';
    assert.equal(await type('version', '-o', 'json'), 0);
    assert.deepEqual(JSON.parse(said.stdout), { podvm: '1.2.3', wire: 2, qemu: null });
    said.stdout = '';
    assert.equal(await type('version', '-o', 'yaml'), 0);
    assert.equal(said.stdout, 'podvm: 1.2.3\nwire: 2\nqemu: null\n');
    assert.equal(await type('version', '-o', 'xml'), 2);
  });
});

describe('podvm logs', () => {
  it('follows no log until a time, which a quiet container would never pass', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('logs', '-f', '--until', '1h', 'web'), 2);
    assert.match(said.stderr, /'--until <time>' cannot be used with option '-f, --follow'/);
  });
});

describe('podvm system df', () => {
  const usage: DiskUsage = {
    root: '/state',
    totalBytes: 103_000_000,
    uses: [
      { kind: 'part', name: 'sysroot-1', bytes: 100_000_000, isOld: false },
      { kind: 'part', name: 'sysroot-0', bytes: 2_000_000, isOld: true },
      { kind: 'other', bytes: 1_000_000, isOld: false },
    ],
  };

  it('lists what takes disk space, as text and as JSON', async () => {
    const { type, said } = openProgram({ diskUsage: () => Promise.resolve(usage) });
    assert.equal(await type('system', 'df'), 0);
    assert.deepEqual(said.stdout.trim().split('\n'), [
      'KIND          SIZE   NAME',
      'part      100.0 MB   sysroot-1',
      'part        2.0 MB   sysroot-0 (of an earlier set-up)',
      'other       1.0 MB',
      'total     103.0 MB   /state',
    ]);
    said.stdout = '';
    assert.equal(await type('system', 'df', '--json'), 0);
    assert.deepEqual(v.parse(diskUsageSchema, JSON.parse(said.stdout)), usage);
    said.stdout = '';
    assert.equal(await type('system', 'df', '-o', 'name'), 0);
    assert.equal(said.stdout, 'sysroot-1\nsysroot-0\nother\n');
    said.stdout = '';
    assert.equal(await type('system', 'df', '-o', 'wide'), 0);
    assert.match(said.stdout, /^KIND +BYTES +NAME\npart +100000000 +sysroot-1\n/);
  });
});

describe('podvm login', () => {
  const opened = (isTTY = false) => {
    const wishes: unknown[] = [];
    const wish = async (it: unknown) => void wishes.push(it);
    const program = openProgram({ login: wish, logout: wish });
    program.stdin.isTTY = isTTY;
    return { ...program, wishes };
  };

  it('passes skopeo the user name, and no password', async () => {
    const { type, wishes } = opened();
    assert.equal(await type('login', '-u', 'shop', '--password-stdin', 'r.example/team'), 0);
    assert.equal(await type('login', '-u', 'shop', '--password-stdin', '--insecure', '--authfile', '/a.json'), 0);
    const common = { username: 'shop', passwordStdin: true };
    assert.deepEqual(wishes, [
      { ...common, registry: 'r.example/team', insecure: false },
      { ...common, registry: 'docker.io', insecure: true, authfile: '/a.json' },
    ]);
    assert.equal(await type('login', '-u', 'shop', '-p', 'secret', 'r.example'), 125);
    assert.equal(await type('login', '--password-stdin', 'r.example'), 2);
    assert.equal(wishes.length, 2);
  });

  it('prompts only on a terminal', async () => {
    const { type, said } = opened();
    assert.equal(await type('login', 'r.example'), 125);
    assert.match(said.stderr, /^podvm: Cannot ask for the password: .*\n {2}fix: .*--password-stdin/);
    const there = opened(true);
    assert.equal(await there.type('login', 'r.example'), 0);
    assert.deepEqual(there.wishes, [{ registry: 'r.example', passwordStdin: false, insecure: false }]);
  });

  it('logs out of one registry, or all', async () => {
    const { type, wishes } = opened();
    assert.equal(await type('logout', 'r.example'), 0);
    assert.equal(await type('logout'), 0);
    assert.equal(await type('logout', '--all', '--authfile', '/a.json'), 0);
    assert.equal(await type('logout', '-a', 'r.example'), 2);
    assert.deepEqual(wishes, [{ registry: 'r.example' }, { registry: 'docker.io' }, { authfile: '/a.json' }]);
  });
});

describe('podvm run of a user with logins', () => {
  const logins = [{ registry: 'r.example', username: 'shop', password: 'p' }];
  /** Types it where a node answers each run that it has finished. Returns its requests. */
  async function requestsOf(found: typeof logins, ...words: readonly string[]) {
    const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-run-'));
    await using _directory = directory;
    const socketPath = join(directory.path, 'podvm.sock');
    const file = join(directory.path, 'pod.yaml');
    await writeFile(file, 'as the node reads it');
    const server = createServer().listen(socketPath);
    const requests: { logins?: unknown }[] = [];
    const sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket) => {
      socket.on('message', (data: Buffer) => {
        requests.push(JSON.parse(data.toString()) as { logins?: unknown });
        socket.send('{"event":"finished","exitCode":0}');
      });
    });
    const asked: string[] = [];
    const { type, said } = openProgram({
      ensureServed: () => Promise.resolve({ socketPath, [Symbol.asyncDispose]: () => Promise.resolve() }),
      namedImages: (files) => Promise.resolve(files.map(({ text }) => `of ${text}`)),
      userLogins: async (images) => {
        asked.push(...(await images()));
        return { logins: found, warnings: ['the logins in /a are not used'] };
      },
    });
    const code = await type('run', ...words.map((word) => (word === 'FILE' ? file : word)));
    sockets.close();
    for (const socket of sockets.clients) socket.terminate();
    await new Promise((resolve) => {
      server.close(resolve);
    });
    return { code, said, asked, requests };
  }

  it('sends the logins for its images, and reports unusable ones', async () => {
    const { code, said, asked, requests } = await requestsOf(
      logins,
      ...['--mount', 'type=image,source=r.example/b,target=/b', 'r.example/a', 'sh'],
    );
    assert.equal(code, 0, said.stderr);
    assert.deepEqual(asked, ['r.example/a', 'r.example/b']);
    assert.deepEqual(requests[0]?.logins, logins);
    assert.equal(said.stderr, 'podvm: warning: the logins in /a are not used\n');
  });

  it('requests the images of a file, and sends nothing without a login', async () => {
    const { code, asked, requests } = await requestsOf([], 'FILE');
    assert.equal(code, 0);
    assert.deepEqual(asked, ['of as the node reads it']);
    assert.ok(requests[0] !== undefined && !('logins' in requests[0]));
  });
});

describe('a word of another program', () => {
  it('is answered with what to type instead, and similar words are not', async () => {
    for (const [words, fix] of [
      [['docker', 'ps', '-a'], /without it: `podvm ps`/],
      [['rmi', 'nginx'], /podvm image rm/],
      [['down', 'web'], /podvm rm -f POD/],
      [['compose', 'up', '-d'], /podvm apply -f FILE/],
      [['secret', 'create', 'x'], /podvm apply -f FILE/],
      [['image', 'build', '.'], /podvm image load FILE/],
    ] as const) {
      const { type, said } = openProgram();
      assert.equal(await type(...words), 2);
      const word = words[0] === 'image' ? words[1] : words[0];
      assert.match(said.stderr, new RegExp(`^podvm: unknown command '${word}'\\n {2}fix: `));
      assert.match(said.stderr, fix);
      assert.doesNotMatch(said.stderr, /Did you mean/);
    }
  });

  it('names only words that are no commands here', async () => {
    const { type, said } = openProgram();
    await type('--help');
    for (const word of foreignWords.keys()) assert.doesNotMatch(said.stdout, new RegExp(`^  ${word} `, 'm'));
  });

  it('prints its version for -v, as docker and podman do', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('-v'), 0);
    assert.equal(said.stdout, '1.2.3\n');
  });

  it('suggests a similar command for a misspelt one', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('stp'), 2);
    assert.match(said.stderr, /^podvm: unknown command 'stp' \(Did you mean stop\?\)\n {2}fix: See `podvm --help`/);
  });

  it('names the help of the command that lacks something', async () => {
    for (const words of [
      ['port-forward', 'web'],
      ['image', 'pull'],
    ]) {
      const { type, said } = openProgram();
      assert.equal(await type(...words), 2);
      const command = words[0] === 'image' ? 'image pull' : words[0];
      assert.match(
        said.stderr,
        new RegExp(`^podvm: missing required argument .*\\n  fix: See \`podvm ${command} --help\``),
      );
    }
  });
});

describe('a flag with a value', () => {
  it('is taken where it is true or false, as of docker and kubectl', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('stop', '--all=false', '--orphaned=true'), 0, said.stderr);
    assert.equal(await type('stop', '--orphaned=1'), 2);
    assert.match(said.stderr, /^podvm: unknown option '--orphaned=1'/);
  });
});

describe('a wrong command line', () => {
  it('has advice for a value of another program', async () => {
    for (const [mode, instead] of [
      ['host', /'host' is invalid\. Allowed choices are cni, none\. .*publish ports with -p\.\n/],
      ['bridge', /'bridge' is invalid\. Allowed choices are cni, none\. Leave it out/],
    ] as const) {
      const { type, said } = openProgram();
      assert.equal(await type('run', '--network', mode, 'nginx'), 2);
      assert.match(said.stderr, instead);
    }
  });

  it('has the advice of its command', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('delete', 'pod', 'web'), 2);
    assert.match(said.stderr, /'-f, --file <file>' not specified\n {2}fix: .*`podvm rm -f POD`/);
  });
});

describe('podvm ps, where no podvm serves', () => {
  it('reports what an ended podvm left running, with a fix', async () => {
    const { type, said } = openProgram({ orphans: () => Promise.resolve([orphan, { ...orphan, name: '' }]) });
    assert.equal(await type('ps'), 0);
    assert.match(said.stdout, /\nshop +web +- +Orphaned +0 +\d+\w +- +-\n/);
    assert.match(said.stdout, /\nshop +machine 77 +- +Orphaned /);
    assert.match(
      said.stderr,
      /^podvm: warning: 2 machines are running, but no podvm serves them\n {2}fix: .*stop --orphaned/,
    );
  });

  it('lists them as JSON', async () => {
    const { type, said } = openProgram({ orphans: () => Promise.resolve([orphan]) });
    assert.equal(await type('ps', '--json'), 0);
    const [pod] = JSON.parse(said.stdout) as { name: string; phase: string }[];
    assert.deepEqual([pod?.name, pod?.phase], ['web', 'Orphaned']);
  });

  it('prints no warning without orphans', async () => {
    const { type, said } = openProgram();
    assert.equal(await type('ps'), 0);
    assert.deepEqual(said.stdout.trim().split('\n').length, 1);
    assert.equal(said.stderr, '');
  });
});

describe('podvm stop', () => {
  it('--orphaned ends and lists orphaned machines', async () => {
    const { type, said } = openProgram({ endOrphans: () => Promise.resolve([orphan]) });
    assert.equal(await type('stop', '--orphaned'), 0);
    assert.equal(said.stdout, 'shop/web stopped\n');
  });

  it('--all and drain also end machines when no podvm serves', async () => {
    for (const words of [['stop', '--all'], ['drain']]) {
      const { type, said } = openProgram({ endOrphans: () => Promise.resolve([orphan]) });
      assert.equal(await type(...words), 0);
      assert.equal(said.stdout, 'shop/web stopped\n');
    }
  });

  it('requires a pod, --all or --orphaned', async () => {
    for (const words of [['stop'], ['stop', 'web', '--orphaned'], ['stop', '--all', '--orphaned']]) {
      const { type, said } = openProgram();
      assert.equal(await type(...words), 2);
      assert.match(said.stderr, /^podvm: specify either pods, --all or --orphaned\n {2}fix: /);
    }
  });
});

describe('a command that must clean up', () => {
  /** Opening waits until it is ended. */
  const serving = () => {
    const opened = Promise.withResolvers<void>();
    const program = openProgram({
      ensureServed: async (_options, _purpose, { any }) => {
        opened.resolve();
        await new Promise((resolve) => {
          any.addEventListener('abort', resolve);
        });
        throw any.reason;
      },
    });
    return { ...program, opened: opened.promise };
  };

  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGQUIT', 131],
  ] as const) {
    it(`receives ${signal} while it starts, cleans up, and ends with the shell's exit code`, async () => {
      const { type, signals, opened, said } = serving();
      const ended = type('run', import.meta.filename);
      await opened;
      signals.emit(signal);
      assert.equal(await ended, code);
      assert.equal(said.stderr, '');
      assert.deepEqual(signals.eventNames(), []);
    });
  }

  it('ends the pull of an image, also on the node', async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-cli-'));
    const socketPath = join(directory.path, 'podvm.sock');
    await using server = createServer().listen(socketPath);
    await once(server, 'listening');
    for (const isAnswered of [false, true]) {
      const program = openProgram({
        ensureServed: () => Promise.resolve({ socketPath, [Symbol.asyncDispose]: () => Promise.resolve() }),
      });
      const ended = program.type('image', 'pull', 'app:1');
      const [, response] = (await once(server, 'request')) as [unknown, ServerResponse];
      const gone = once(response, 'close');
      if (isAnswered) {
        response.write('{"message":"downloading"}\n');
        await poll(async () => program.said.stderr.includes('downloading') || undefined, {
          everyMs: 1,
          signal: AbortSignal.timeout(60_000),
        });
      }
      program.signals.emit('SIGINT');
      assert.equal(await ended, 130);
      await gone;
    }
  });

  it('ends by a signal that nothing handles while it starts', async () => {
    let disposed = 0;
    const program = openProgram({
      ensureServed: async () => {
        program.signals.emit('SIGINT');
        return { socketPath: '/nonexistent', [Symbol.asyncDispose]: async () => void (disposed += 1) };
      },
    });
    assert.equal(await program.type('run', import.meta.filename), 130);
    assert.equal(program.said.stderr, '');
    assert.equal(disposed, 1);
  });

  it('detects that its output has no reader', async () => {
    const { type, outputGone, opened } = serving();
    const ended = type('run', import.meta.filename);
    await opened;
    outputGone.abort();
    assert.equal(await ended, 141);
  });
});
