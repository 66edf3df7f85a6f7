import { open, signals, unmountFlags } from '../constants.ts';
import { ready } from '../engine.ts';
import { attempt, drain, engine, exits, shell, sleep, until, type Scenario } from './support.ts';

const round = async () => {
  for (let i = 0; i < 200; i += 1) {
    const output = engine.pipe('read');
    const ended = exits(1);
    shell('echo x', [-1, output.write, 2]);
    engine.close(output.write);
    await drain(output.read);
    await ended;
    engine.readText('/proc/self/stat', 4096);
    engine.decodeBase64(engine.encodeBase64(new Uint8Array(10_000)));
  }
  engine.collectGarbage();
  return engine.memoryUse();
};

const spawn = (argv: string[], more: object = {}) =>
  attempt(() => engine.spawn({ argv, env: [], fds: [-1, -1, -1], ...more }));

/** Returns the output of a process in the namespaces of `first`, and the reports about it, without pids. */
async function enterBeside(first: number, cgroup: string, words: readonly (string | number)[], filter?: number) {
  const [reports, theirs] = engine.socketPair();
  const output = engine.pipe('read');
  const planPath = `/tmp/podvm-plan-${engine.pid}`;
  engine.writeFile(planPath, engine.encodeUtf8(words.map((word) => `${word}\0`).join('')));
  const fds = [engine.open(planPath, open.readOnly), engine.openProcess(first), engine.open(cgroup, open.directory)];
  const programFd = engine.open('/proc/self/exe', open.path);
  const ended = new Map<number, number | undefined>();
  engine.onExit(({ pid, code }) => ended.set(pid, code));
  const [requests, itsRequests] = engine.socketPair();
  const helper = engine.spawn({ argv: ['podvm-enter'], programFd, env: [], fds: [itsRequests, -1, 2] });
  const none = engine.open('/dev/null', open.readWrite);
  const given = [none, output.write, output.write, theirs, ...fds, ...(filter === undefined ? [] : [filter])];
  engine.sendDescriptors(requests, given);
  for (const fd of [none, itsRequests, theirs, output.write, programFd, ...fds]) engine.close(fd);
  engine.removeFile(planPath);
  const said: string[] = [];
  let pid = 0;
  const terminals: number[] = [];
  const bytes = new Uint8Array(4096);
  await new Promise<void>((resolve) => {
    engine.watch(reports, ready.readable, () => {
      const { bytes: length, fds: sent } = engine.receive(reports, bytes);
      const report = engine.decodeUtf8(bytes, 0, length);
      terminals.push(...sent);
      if (report.startsWith('p')) pid = Number(report.slice(1));
      else if (length > 0) said.push(report);
      else {
        engine.close(reports);
        resolve();
      }
    });
  });
  let text = await drain(output.read);
  engine.close(requests);
  const hasEnded = (each: number) => each === 0 || ended.has(each);
  await until(() => hasEnded(pid) && hasEnded(helper));
  for (const master of terminals) {
    const more = () => (text += engine.decodeUtf8(bytes, 0, engine.read(master, bytes)));
    while (attempt(more) === 'done') continue; // until EIO: no process has the other end
    engine.close(master);
  }
  return { text, reports: said, code: ended.get(pid), helper: ended.get(helper) };
}

export const processesScenarios: Record<string, Scenario> = {
  async streams() {
    const [input, output] = [engine.pipe('write'), engine.pipe('read')];
    const ended = exits(1);
    shell('tr a-z A-Z; echo "$$" >/dev/null; exit 7', [input.read, output.write, 2]);
    engine.close(input.read);
    engine.close(output.write);
    engine.write(input.write, engine.encodeUtf8('grüße'));
    engine.close(input.write);
    const text = await drain(output.read);
    const [exit] = await ended;
    return { text, code: exit?.code, signal: exit?.signal };
  },

  async manyChildren() {
    const before = engine.memoryUse().descriptors;
    const ended = exits(400);
    const started: number[] = [];
    const outputs: Promise<string>[] = [];
    for (let i = 0; i < 400; i += 1) {
      const output = engine.pipe('read');
      started.push(shell(`echo ${i}; exit ${i % 200}`, [-1, output.write, 2]));
      engine.close(output.write);
      outputs.push(drain(output.read));
    }
    const codes = new Map((await ended).map(({ pid, code }) => [pid, code]));
    const texts = await Promise.all(outputs);
    return {
      wrongCodes: started.filter((pid, i) => codes.get(pid) !== i % 200).length,
      wrongTexts: texts.filter((text, i) => text !== `${i}\n`).length,
      leakedDescriptors: engine.memoryUse().descriptors - before,
    };
  },

  async orphans() {
    engine.becomeSubreaper();
    const ended = exits(2);
    const child = shell('(while kill -0 $$; do sleep 0.01; done) 2>/dev/null & exit 0'); // ends after the shell
    const seen = await ended;
    return { first: seen[0]?.pid === child, orphan: seen[1]?.pid !== child, codes: seen.map(({ code }) => code) };
  },

  async signals() {
    const ended = exits(1);
    const pid = shell('exec sleep 60'); // a child of the shell would outlive it, with our output
    engine.kill(pid, signals.kill);
    const [exit] = await ended;
    return { signal: exit?.signal, code: exit?.code, gone: attempt(() => engine.kill(pid, 0)) };
  },

  async failedSpawns() {
    const before = engine.memoryUse().descriptors;
    let reaped = 0;
    engine.onExit(() => (reaped += 1));
    const codes = {
      missing: spawn(['/nonexistent']),
      directory: spawn(['/tmp']),
      emptyArgv: spawn([]),
      nul: spawn(['/bin/true', 'a\0b']),
      badFd: spawn(['/bin/true'], { fds: [999, -1, -1] }),
      badCwd: spawn(['/bin/true'], { cwd: '/nonexistent' }),
      fraction: spawn(['/bin/true'], { fds: [0.5] }),
      hugeFd: spawn(['/bin/true'], { fds: [2 ** 32] }),
      uidAlone: spawn(['/bin/true'], { uid: 1 }),
      noOptions: attempt(() => engine.spawn(undefined as never)), // SAFE: it must refuse it
    };
    await sleep(50);
    return { codes, reaped, leakedDescriptors: engine.memoryUse().descriptors - before };
  },

  async descriptorsOfChild() {
    const output = engine.pipe('read');
    const extra = engine.open('/dev/null', open.readOnly);
    shell('ls /proc/self/fd | tr "\\n" " "', [-1, output.write, output.write, extra]);
    engine.close(output.write);
    engine.close(extra);
    return drain(output.read);
  },

  /** Targets that are sources of others: 1 <- 2's place and so on. */
  async swappedDescriptors() {
    const [first, second] = [engine.pipe('read'), engine.pipe('read')];
    engine.duplicateTo(first.write, 0);
    shell('echo one >&1; echo two >&2', [-1, second.write, 0]);
    engine.duplicateTo(first.read, 0);
    engine.close(first.write);
    engine.close(second.write);
    return [await drain(second.read), await drain(first.read)];
  },

  async sealedProgram(directory) {
    const program = engine.sealedCopy('/bin/sh');
    const output = engine.pipe('read');
    engine.spawn({
      argv: ['sh', '-c', 'echo sealed; pwd'],
      programFd: program,
      env: [],
      cwd: directory,
      fds: [-1, output.write, 2],
    });
    engine.close(output.write);
    const text = await drain(output.read);
    return { text: text.replace(directory, 'here'), write: attempt(() => engine.write(program, new Uint8Array(1))) };
  },

  async pause() {
    const ended = exits(1);
    const pid = engine.spawnPause(true, '0 1000 10\n', '0 2000 10\n');
    const nameOf = () => engine.readText(`/proc/${pid}/cmdline`, 8192).replaceAll('\0', '');
    await until(() => nameOf() === 'podvm-pause'); // it names itself once it runs
    const isOwn = (kind: string) =>
      engine.readLink(`/proc/${pid}/ns/${kind}`) !== engine.readLink(`/proc/self/ns/${kind}`);
    const namespaces = ['pid', 'user', 'net', 'ipc', 'uts', 'mnt'].filter(isOwn);
    const maps = engine.readText(`/proc/${pid}/uid_map`, 100).trim().split(/\s+/);
    const ids = engine.readText(`/proc/${pid}/status`, 4096).match(/(?<=[UG]id:\t)\d+/g);
    const name = nameOf();
    engine.kill(pid, signals.kill);
    const [exit] = await ended;
    return { name, namespaces, maps, ids, signal: exit?.signal };
  },

  /** Maps that the kernel refuses leave no process that waits for them. */
  async badMaps() {
    const ended = exits(1);
    const codes = ['0 1000 0\n', 'x\n', ''].map((map) => attempt(() => engine.spawnPause(false, map, map)));
    await ended;
    return codes;
  },

  /** Changes owners as other users see them, writes as another user, and enters another network. */
  async users() {
    const pid = engine.spawnPause(false, '0 1000 10\n', '0 2000 10\n');
    const [source, target] = [`/tmp/podvm-source-${engine.pid}`, `/tmp/podvm-target-${engine.pid}`];
    for (const directory of [source, target]) engine.makeDirectories(directory);
    engine.mount('tmpfs', source, 'tmpfs', 0, '');
    engine.writeFile(`${source}/file`, 'root', 0o644);
    engine.mountMapped(source, target, pid);
    const { uid, gid } = engine.statusOf(engine.open(`${target}/file`, open.path));
    const denied = attempt(() => engine.writeExistingAs(`${source}/file`, 'other', 1000));
    engine.writeExisting(`${source}/file`, 'mine');
    const proc = attempt(() => engine.mountMapped('/proc/self/fd', target, pid));
    engine.enterNamespaces(pid);
    const links = engine.readText('/proc/self/net/dev', 4096).match(/\w+(?=:)/g);
    const text = engine.readText(`${source}/file`, 100);
    for (const directory of [target, source]) {
      engine.unmount(directory, unmountFlags.detach);
      engine.removeDirectory(directory);
    }
    engine.kill(pid, signals.kill);
    return { uid, gid, denied, text, proc, links, noProcess: attempt(() => engine.enterNamespaces(pid + 10_000)) };
  },

  /**
   * Runs `podvm-enter`: a process in the cgroup and the pid namespace of another, and the report when there is none.
   */
  async entered(directory) {
    engine.mount('cgroup2', directory, 'cgroup2', 0, '');
    const cgroup = `${directory}/podvm-entered-${engine.pid}`;
    engine.makeDirectory(cgroup);
    const pause = engine.spawnPause(true);
    const enter = (...words: readonly (string | number)[]) => enterBeside(pause, cgroup, words);
    const allows = engine.pipe('none'); // a filter of one instruction: BPF_RET, SECCOMP_RET_ALLOW
    engine.write(allows.write, new Uint8Array([6, 0, 0, 0, 0, 0, 0xff, 0x7f]));
    const script =
      'echo $$ $PPID; id -u; id -G; umask; ulimit -n; pwd; echo $LEFT; grep -E "^(Cap(Bnd|Eff|Amb)|NoNew|Seccomp:)" /proc/self/status; grep ^0:: /proc/self/cgroup';
    const words = [0, 1234, 2345, '7,8', '0,5', '0', 1, 1, 0, '7,99,100', 0, 0, 0, '/usr', 2, 3];
    const whole = [...words, 'PATH=/nonexistent:/bin', 'LEFT=a b', 'sh', '-c', script];
    const good = await enterBeside(pause, cgroup, whole, allows.read);
    const plain = [0, 0, 0, '', '', '', 0, 0, 0, '', 0, 0, 0, '/', 1, 1, 'PATH=/bin'];
    const terminal = [...plain];
    terminal.splice(10, 3, 1, 91, 17);
    terminal.splice(15, 1, 3);
    const results = {
      good: { ...good, text: good.text.replace(/^.*podvm-entered-\d+$/gm, 'in its cgroup').split('\n') },
      terminal: (await enter(...terminal, 'sh', '-c', 'stty size; tty >/dev/null && echo tty')).text,
      missing: (await enter(...plain, 'podvm-no-such')).reports,
      noPath: (await enter(...plain.slice(0, 14), 0, 1, 'sh')).reports,
      notExecutable: (await enter(...plain, '/etc/passwd')).reports,
      directory: (await enter(...plain, '/etc')).reports,
      noDirectory: (await enter(...plain.slice(0, 13), '/podvm-none', 1, 1, 'PATH=/bin', 'true')).reports,
      short: (await enter(...plain)).reports,
    };
    const ended = exits(1);
    engine.kill(pause, signals.kill);
    await ended;
    const gone = attempt(() => engine.openProcess(pause));
    engine.removeDirectory(cgroup);
    engine.unmount(directory, unmountFlags.detach);
    return { ...results, gone };
  },

  /** Calls made by processes aside: their errno is the exit code, and the fifth at a time is refused with 0. */
  async asides(directory) {
    const code = async (start: () => number) => {
      const ended = exits(1);
      start();
      return (await ended)[0]?.code;
    };
    const request = (type: number) => {
      const bytes = new Uint8Array(16);
      new DataView(bytes.buffer).setUint32(0, bytes.length, true);
      new DataView(bytes.buffer).setUint32(4, type | (5 << 16), true); // NLM_F_REQUEST | NLM_F_ACK
      return bytes;
    };
    const socket = engine.openNetlink('route', 0);
    const mounted = await code(() => engine.mountAside('tmpfs', directory, 'tmpfs', 0, ''));
    if (mounted === 0) engine.unmount(directory, unmountFlags.detach);
    const results = {
      mounted,
      noType: await code(() => engine.mountAside('x', directory, 'podvm', 0, '')),
      noModule: await code(() => engine.loadModuleAside(`${directory}/absent.ko`)),
      answered: await code(() => engine.netlinkAside(socket, request(1))), // NLMSG_NOOP
      refused: await code(() => engine.netlinkAside(socket, request(9999))),
      notWhole: attempt(() => engine.netlinkAside(socket, new Uint8Array(15))),
      tooLong: attempt(() => engine.loadModuleAside('x'.repeat(5000))),
    };
    const ended = exits(4);
    const pids = [1, 2, 3, 4, 5].map(() => engine.loadModuleAside(`${directory}/absent.ko`));
    await ended;
    const again = await code(() => engine.loadModuleAside(`${directory}/absent.ko`));
    return { ...results, started: pids.map((pid) => pid > 0), again };
  },

  async spawnTimes() {
    const runs: number[] = [];
    for (let i = 0; i < 50; i += 1) {
      const startedMs = engine.monotonicMs();
      const ended = exits(1);
      engine.spawn({ argv: ['/bin/true'], env: [], fds: [-1, -1, -1] });
      await ended;
      runs.push(engine.monotonicMs() - startedMs);
    }
    return Math.min(...runs);
  },

  /** Makes many calls of every kind, twice: nothing may have grown the second time. */
  async steady() {
    await round();
    const first = await round();
    const second = await round();
    return {
      residentKiB: second.residentKiB,
      heapGrowth: second.heapBytes - first.heapBytes,
      leakedDescriptors: second.descriptors - first.descriptors,
    };
  },
};
