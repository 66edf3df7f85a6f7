import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ChildExit, SpawnOptions } from '#engine/engine.ts';
import { Entrance, type Entry } from './enter-container.ts';

/**
 * An engine whose `podvm-enter` answers each request with reports; `hangs`: it never does. `opened`: the open
 * descriptors.
 */
function fakeEngine(answer: (cgroup: string) => readonly string[], hangs = false) {
  const opened = new Map<number, string>();
  const exits = new Map<number, (exit: ChildExit) => void>();
  const started: number[] = [];
  const plans: string[] = [];
  const killed: number[] = [];
  const timers: (() => void)[] = [];
  const queues = new Map<number, { readonly text: string; readonly fds: readonly number[] }[]>();
  let next = 10;
  let helperIsGone = false;
  const take = (what: string) => {
    opened.set((next += 1), what);
    return next;
  };
  const engine = {
    socketPair: (): [number, number] => {
      const ours = take('reports');
      queues.set(ours, []);
      return [ours, take('theirs')];
    },
    spawn: ({ argv }: SpawnOptions) => {
      assert.deepEqual(argv, ['podvm-enter']);
      helperIsGone = false;
      started.push(1000 + started.length);
      return 999 + started.length;
    },
    sendDescriptors: (_requests: number, fds: readonly number[]) => {
      assert.ok(!helperIsGone && fds.every((fd) => opened.has(fd) || fd < 3));
      const reports = (fds[3] ?? 0) - 1; // the other end of that pair
      const texts = answer(opened.get(fds[6] ?? 0) ?? '');
      queues.set(
        reports,
        texts.map((text) => ({ text, fds: text === 't' ? [take('terminal')] : [] })),
      );
    },
    watch: (fd: number, _interest: number, handler: (events: number) => void) => {
      if (hangs) return;
      for (let left = queues.get(fd)?.length ?? 0; left >= 0; left -= 1) handler(1);
    },
    unwatch: () => {},
    receive: (fd: number, bytes: Uint8Array) => {
      const { text = '', fds = [] } = queues.get(fd)?.shift() ?? {};
      bytes.set(Buffer.from(text));
      return { bytes: text.length, fds: [...fds] };
    },
    open: (path: string) => take(path),
    openProcess: (pid: number) => take(`process ${pid}`),
    close: (fd: number) => assert.ok(opened.delete(fd), `descriptor ${fd} is closed twice`),
    writeFile: (_path: string, data: Uint8Array | string) => void plans.push(Buffer.from(data).toString()),
    removeFile: () => {},
    readText: () => '0::/pod/c/inner\n',
    encodeUtf8: (text: string) => Buffer.from(text),
    decodeUtf8: (bytes: Uint8Array, offset = 0, length = 0) => Buffer.from(bytes).toString('utf8', offset, length),
    setTimer: (_ms: number, handler: () => void) => timers.push(handler),
    clearTimer: () => {},
    kill: (pid: number) => void killed.push(pid),
  };
  const children = { onExit: (pid: number, handler: (exit: ChildExit) => void) => void exits.set(pid, handler) };
  const endHelper = (pid: number) => {
    helperIsGone = true;
    exits.get(pid)?.({ pid, code: undefined, signal: 9, maxRssKiB: 0 });
  };
  return { entrance: new Entrance({ engine, children }), opened, started, plans, killed, timers, endHelper };
}

const entry: Entry = {
  params: {
    id: 'c',
    seccomp: { defaultAction: 'SCMP_ACT_ALLOW', flags: ['SECCOMP_FILTER_FLAG_LOG'] },
    process: {
      ...{ args: ['sleep'], env: [], cwd: '/', user: '', supplementalGroups: [] },
      capabilities: ['CAP_CHOWN', 'CAP_KILL', 'CAP_OF_A_LATER_KERNEL'],
      noNewPrivileges: true,
      rlimits: [{ type: 'RLIMIT_NOFILE', soft: 10, hard: 20 }],
    },
  },
  process: {
    terminal: false,
    user: { uid: 1, gid: 2, additionalGids: [3, 4], umask: 0o022 },
    args: ['echo', 'ü'],
    env: ['A=b'],
    cwd: '/tmp',
  },
  firstPid: 7,
  cgroup: '/pod/c',
  hasOwnUsers: false,
  planPath: '/run/plan',
};

/** Descriptors that stay open: the socket for requests. */
const kept = ['reports'];

it('enter() sends the plan in the order of enter-plan.c, and starts its helper once', async () => {
  const { entrance, opened, started, plans } = fakeEngine(() => ['p42']);
  for (const _ of [1, 2]) assert.deepEqual(await entrance.enter(entry, [-1, 1, 2]), { pid: 42, terminal: -1 });
  const words = ['0', '1', '2', '3,4', '0,5,-1', '', '1', '1', '2', '7,10,20', '0', '0', '0', '/tmp', '1', '2'];
  assert.deepEqual(plans[0]?.split('\0'), [...words, 'A=b', 'echo', 'ü', '']);
  assert.equal(started.length, 1);
  assert.deepEqual([...opened.values()], kept);
});

it('enter() starts another helper when its helper has ended', async () => {
  const { entrance, opened, started, endHelper } = fakeEngine(() => ['p42']);
  await entrance.enter(entry, [-1, 1, 2]);
  endHelper(started[0] ?? 0);
  await entrance.enter(entry, [-1, 1, 2]);
  assert.equal(started.length, 2);
  assert.deepEqual([...opened.values()], kept);
});

it('enter() reports why a command cannot run, and closes its terminal', async () => {
  const why = 'executable file `x` not found in $PATH: No such file or directory';
  const { entrance, opened } = fakeEngine(() => ['p42', 't', `!ENOENT ${why}`]);
  await assert.rejects(entrance.enter(entry, [-1, -1, -1]), {
    kind: 'failedPrecondition',
    message: `Cannot exec container: ${why}`,
  });
  assert.deepEqual([...opened.values()], kept);
});

it('enter() fails when its helper ends before it has made the process', async () => {
  const { entrance } = fakeEngine(() => []);
  await assert.rejects(entrance.enter(entry, [-1, -1, -1]), { message: /its process was not made/ });
});

it('enter() uses the first process’s cgroup when the container has divided its own', async () => {
  const seen: string[] = [];
  const { entrance } = fakeEngine((cgroup) => {
    seen.push(cgroup);
    return cgroup.endsWith('/inner') ? ['p42', 't'] : ['!EBUSY make a process: Device or resource busy'];
  });
  const { pid, terminal } = await entrance.enter(entry, [-1, -1, -1]);
  assert.equal(pid, 42);
  assert.ok(terminal > 0);
  assert.deepEqual(seen, ['/sys/fs/cgroup/pod/c', '/sys/fs/cgroup/pod/c/inner']);
});

it('enter() fails with a hanging helper, after as many pauses as its deadline has seconds', async () => {
  const { entrance, opened, started, killed, timers } = fakeEngine(() => [], true);
  const entering = entrance.enter(entry, [-1, -1, -1]);
  const failing = assert.rejects(entering, { kind: 'timeout', message: /did not begin within 60000 ms/ });
  for (let pauses = 0; pauses < 59; pauses += 1) timers.shift()?.(); // each may have taken minutes
  assert.deepEqual(killed, []);
  timers.shift()?.();
  await failing;
  assert.deepEqual(killed, started);
  assert.deepEqual([...opened.values()], kept);
});
