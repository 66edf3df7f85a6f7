import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import { open, signals } from '#engine/constants.ts';
import { again, codeOf, ready, type Engine } from '#engine/engine.ts';
import type { Children } from '../process/children.ts';
import { afterPauses } from '../process/poll.ts';
import { cgroupRoot } from './cgroups.ts';
import { crunStateRoot } from './crun.ts';
import type { StartedProcess } from './launch.ts';
import type { OciProcess } from './oci-config.ts';

interface Parts {
  readonly engine: Pick<
    Engine,
    | 'spawn'
    | 'kill'
    | 'openProcess'
    | 'socketPair'
    | 'sendDescriptors'
    | 'receive'
    | 'watch'
    | 'unwatch'
    | 'open'
    | 'close'
    | 'readText'
    | 'writeFile'
    | 'removeFile'
    | 'encodeUtf8'
    | 'decodeUtf8'
    | 'setTimer'
    | 'clearTimer'
  >;
  readonly children: Pick<Children, 'onExit'>;
}

/** A further process of a container. */
export interface Entry {
  /** Parameters of the container. */
  readonly params: Pick<ContainerParams, 'id' | 'process' | 'seccomp'>;
  readonly process: OciProcess;
  readonly firstPid: number;
  /** The container's cgroup. */
  readonly cgroup: string;
  readonly hasOwnUsers: boolean;
  /** Path of a file that exists only during the call. */
  readonly planPath: string;
}

/** Time for a command to begin, in `ms`, counted in pauses (`afterPauses`). */
const deadlineMs = 60_000;
const maxReportBytes = 4096;

type Streams = readonly [number, number, number];

/** Capabilities and limits by their numbers (capabilities(7), setrlimit(2)). */
const capabilityNames =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  );
const limitNames =
  'CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME'.split(' ');
/** SECCOMP_FILTER_FLAG_... (seccomp(2)), for flags of a profile. */
const filterFlags: Readonly<Record<string, number>> = { TSYNC: 1, LOG: 2, SPEC_ALLOW: 4, WAIT_KILLABLE_RECV: 32 };

/**
 * Makes processes in containers as `crun exec` does. `podvm-enter` (src/engine/guest/enter.c) is started with the first
 * one; it gets the data that the agent has already, and the filter that crun has compiled.
 */
export class Entrance {
  readonly #parts: Parts;
  #helper: { readonly pid: number; readonly requests: number } | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Makes a process inside `Children.expecting`; the caller keeps the standard streams (-1: /dev/null). Errors:
   * `failedPrecondition` with crun's message for a command that cannot run; `timeout`.
   */
  async enter(entry: Entry, streams: Streams): Promise<StartedProcess> {
    const { engine } = this.#parts;
    let outcome = await this.#enter(entry, streams, cgroupRoot + entry.cgroup);
    if (outcome.failure?.code === 'EBUSY') {
      // A container that has made its own cgroups, as systemd does, may have no process in the one above them.
      const [, own = ''] = /^0::(.*)$/m.exec(engine.readText(`/proc/${entry.firstPid}/cgroup`, maxReportBytes)) ?? [];
      outcome = await this.#enter(entry, streams, cgroupRoot + own);
    }
    const { pid, terminal, failure } = outcome;
    if (failure === undefined && pid !== undefined) return { pid, terminal };
    if (terminal >= 0) engine.close(terminal);
    const why = failure?.message ?? 'its process was not made';
    throw new PodvmError('failedPrecondition', `Cannot exec container: ${printable(why)}`);
  }

  async #enter(entry: Entry, streams: Streams, cgroup: string): Promise<Outcome> {
    const { engine } = this.#parts;
    const opened = new Set<number>();
    const own = (fd: number): number => {
      opened.add(fd);
      return fd;
    };
    const release = (fd: number): void => {
      opened.delete(fd);
      engine.close(fd);
    };
    try {
      const helper = this.#helper ?? this.#start();
      const [reports, theirs] = engine.socketPair();
      own(reports);
      own(theirs);
      engine.writeFile(entry.planPath, planOf(engine, entry), 0o600);
      const plan = own(engine.open(entry.planPath, open.readOnly));
      engine.removeFile(entry.planPath);
      const { id, seccomp } = entry.params;
      engine.sendDescriptors(helper.requests, [
        ...streams.map((fd) => (fd < 0 ? own(engine.open('/dev/null', open.readWrite)) : fd)),
        ...[theirs, plan, own(engine.openProcess(entry.firstPid)), own(engine.open(cgroup, open.directory))],
        ...(seccomp === null ? [] : [own(engine.open(`${crunStateRoot}/${id}/seccomp.bpf`, open.readOnly))]),
      ]);
      release(theirs); // the reports end when no other process has this end
      return await outcomeOf(engine, reports, helper.pid);
    } finally {
      for (const fd of opened) engine.close(fd);
    }
  }

  #start(): { readonly pid: number; readonly requests: number } {
    const { engine, children } = this.#parts;
    const [requests, theirs] = engine.socketPair();
    const programFd = engine.open('/proc/self/exe', open.path);
    try {
      const pid = engine.spawn({ argv: ['podvm-enter'], programFd, env: [], fds: [theirs, -1, -1] });
      const helper = { pid, requests };
      this.#helper = helper;
      children.onExit(pid, () => {
        engine.close(requests);
        if (this.#helper === helper) this.#helper = undefined; // the next process starts a new one
      });
      return helper;
    } catch (error) {
      engine.close(requests);
      throw error;
    } finally {
      engine.close(programFd);
      engine.close(theirs);
    }
  }
}

interface Outcome {
  readonly pid?: number;
  readonly terminal: number;
  readonly failure?: { readonly code: string; readonly message: string };
}

/** Reads reports until the process runs the command, or has ended. Errors: `timeout`; both processes are killed then. */
function outcomeOf(engine: Parts['engine'], reports: number, helper: number): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  const bytes = new Uint8Array(maxReportBytes);
  let outcome: Outcome = { terminal: -1 };
  const done = afterPauses(engine, deadlineMs, () => {
    engine.unwatch(reports);
    if (outcome.terminal >= 0) engine.close(outcome.terminal);
    for (const pid of [helper, outcome.pid]) if (pid !== undefined) kill(engine, pid);
    reject(new PodvmError('timeout', `Cannot exec container: the command did not begin within ${deadlineMs} ms`));
  });
  engine.watch(reports, ready.readable, () => {
    const message = engine.receive(reports, bytes);
    if (message.bytes === again) return;
    if (message.bytes > 0) {
      outcome = { ...outcome, ...readReport(engine.decodeUtf8(bytes, 0, message.bytes), message.fds) };
      return;
    }
    done();
    engine.unwatch(reports);
    resolve(outcome);
  });
  return promise;
}

/** One message of `entry_report` in enter-plan.c. */
function readReport(text: string, [fd = -1]: readonly number[]): Partial<Outcome> {
  const rest = text.slice(1);
  switch (text[0]) {
    case 'p':
      return { pid: Number(rest) };
    case 't':
      return { terminal: fd };
    default: {
      const [code = ''] = rest.split(' ', 1);
      return { failure: { code, message: rest.slice(code.length + 1) } };
    }
  }
}

/** Kills a process, which may have ended already. */
function kill(engine: Parts['engine'], pid: number): void {
  try {
    engine.kill(pid, signals.kill);
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error;
  }
}

/** Returns the words that enter-plan.c reads (`take_entry_plan`), each ended by a NUL. */
function planOf(engine: Parts['engine'], { params, process, hasOwnUsers }: Entry): Uint8Array {
  const { capabilities, ambientCapabilities = [], noNewPrivileges, rlimits } = params.process;
  const { user, terminal, consoleSize = { width: 0, height: 0 }, cwd, env, args } = process;
  const flag = (isSet: boolean) => (isSet ? 1 : 0);
  const capabilityOf = (name: string) => capabilityNames.indexOf(name.replace(/^CAP_/, ''));
  const limitOf = (type: string) => limitNames.indexOf(type.replace(/^RLIMIT_/, ''));
  const words = [
    flag(hasOwnUsers),
    ...[user.uid, user.gid, user.additionalGids.join()],
    ...[capabilities, ambientCapabilities].map((names) => names.map(capabilityOf).join()),
    ...[flag(noNewPrivileges), flag(params.seccomp !== null), filterFlagsOf(params.seccomp)],
    rlimits.map(({ type, soft, hard }) => `${limitOf(type)},${soft},${hard}`).join(),
    ...[flag(terminal), consoleSize.width, consoleSize.height],
    cwd,
    ...[env.length, args.length],
    ...env,
    ...args,
  ];
  return engine.encodeUtf8(words.map((word) => `${word}\0`).join(''));
}

/** Returns the flags of a profile as a number; a profile without flags, or a program, gets crun's default. */
function filterFlagsOf(seccomp: ContainerParams['seccomp']): number {
  const flags: unknown = typeof seccomp === 'string' ? undefined : seccomp?.['flags'];
  if (!Array.isArray(flags)) return filterFlags['SPEC_ALLOW'] ?? 0;
  return flags.reduce<number>(
    (sum, flag) => sum | (filterFlags[String(flag).replace(/^SECCOMP_FILTER_FLAG_/, '')] ?? 0),
    0,
  );
}
