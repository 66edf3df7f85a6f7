import { chmod, mkdir, readFile, rm } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { isThere, readFileIfThere, replaceFile, writeFileAtomic } from '#host/file/files.ts';
import { logTail, spawnJailed } from '#host/jail/jailed-process.ts';
import {
  allPids,
  identify,
  isRunning,
  killProcess,
  type ProcessIdentity,
  readProcessFile,
} from '#host/process/process-identity.ts';
import { userIdOf } from '#host/user-ids.ts';
import { poll } from '#host/wait.ts';
import type { BuiltInBridge } from '../network.ts';
import { dnsCalls } from './dns-calls.ts';
import { dnsPort } from './service-rules.ts';
import type { Served } from '#base/served-services.ts';

/** The user that the DNS server runs as, below the range of the sandboxes' users. */
const dnsUid = userIdOf(1_999_997, 64_101);
/** Upper limits of the server: memory in bytes, open files, processes (one for each connection over TCP). */
const limits = { core: 1, as: 256 * 1024 * 1024, nofile: 512, nproc: 32, memlock: 65_536, fsize: 1024 * 1024 } as const;
/** Variable of the server that tells whose it is. */
const markVariable = 'PODVM_NAMES';
const maxUpstreams = 8;
/** Limit of questions that wait for the servers of the node, far above what one pod may have (`service-rules.ts`). */
const maxForwards = 30_000;
const answersWithinMs = 10_000;

const recordSchema = v.object({
  pid: v.pipe(v.number(), v.integer(), v.minValue(2)),
  startTicks: v.string(),
  command: v.pipe(v.array(v.string()), v.readonly()),
});
type DnsRecord = v.InferOutput<typeof recordSchema>;

/** `stateDir`: that of the network. */
export const servicesDirectory = (stateDir: string): string => join(stateDir, 'services');

/**
 * The DNS server of one bridge: dnsmasq, which outlives this process as the pods that ask it do. It runs without privileges
 * in a jail with the network, /usr, the directory of its names and a list of system calls.
 */
export class ServiceDns {
  readonly #directory: string;
  readonly #resolvConf: string;
  /** Whether the server has read the names since they changed; an earlier process may have ended before it said so. */
  #isRead = false;

  /** `directory`: holds its record, log and names. `resolvConf`: names the servers that it asks. */
  constructor(directory: string, resolvConf = '/etc/resolv.conf') {
    this.#directory = directory;
    this.#resolvConf = resolvConf;
  }

  /** Serves these names, and asks the servers of the node for others. Errors: `failedPrecondition`, `internal`, `timeout`. */
  async serve(bridge: BuiltInBridge, names: Served['names']): Promise<void> {
    await mkdir(this.#names, { recursive: true, mode: 0o755 });
    for (const closed of [dirname(this.#directory), this.#directory]) await chmod(closed, 0o711); // to mount the names
    const hosts = join(this.#names, 'hosts');
    const text = names.map(({ name, address }) => `${address} ${name}\n`).join('');
    if ((await readFileIfThere(hosts)) !== text) {
      this.#isRead = false;
      await replaceFile(hosts, text);
    }
    await chmod(hosts, 0o644);
    const resolvConf = (await readFileIfThere(this.#resolvConf)) ?? '';
    const command = commandOf(bridge, this.#names, upstreamsOf(resolvConf));
    const running = await this.#running();
    if (running !== undefined && isDeepStrictEqual(running.command, command)) {
      if (!this.#isRead) process.kill(running.pid, 'SIGHUP'); // it reads its names again
    } else {
      await this.stop();
      await this.#start(command);
    }
    this.#isRead = true;
  }

  async stop(): Promise<void> {
    const running = await this.#running();
    if (running !== undefined) await killProcess(running);
    await rm(this.#record, { force: true });
    if (await isThere(this.#names)) await this.#endUnrecorded();
  }

  async #start(command: readonly string[]): Promise<void> {
    const output = join(this.#directory, 'dns.log');
    let started: ProcessIdentity | undefined;
    try {
      const { identity, ended } = await spawnJailed({
        what: 'the DNS server of Services',
        command,
        output,
        inherited: [dnsCalls()],
      });
      started = identity;
      ended.catch(() => undefined); // `serve` looks whether it runs
      await writeFileAtomic(this.#record, `${JSON.stringify({ ...identity, command } satisfies DnsRecord)}\n`);
      await untilServing(identity, output);
    } catch (cause) {
      if (started !== undefined) await killProcess(started); // it may not be on record
      await this.stop();
      throw new PodvmError('failedPrecondition', `Cannot resolve names of Services: ${messageOf(cause)}`, {
        cause,
        tail: await logTail(output),
        fix: `Install the Debian package dnsmasq-base, and end what else uses port ${dnsPort} of the node.`,
      });
    }
  }

  /**
   * Ends servers of these names that are not on record: their starter was killed before it wrote that. The words of the
   * jail name the directory; in it, the server's environment does.
   */
  async #endUnrecorded(): Promise<void> {
    for (const pid of await allPids()) {
      const read = async (file: string) => (await readProcessFile(pid, file)) ?? '';
      if (Number(/^Uid:\s(\d+)\s/m.exec(await read('status'))?.[1]) !== dnsUid) continue;
      const words = [...(await read('cmdline')).split('\0'), ...(await read('environ')).split('\0')];
      if (!words.includes(this.#names) && !words.includes(`${markVariable}=${this.#names}`)) continue;
      const identity = await identify(pid);
      if (identity !== undefined) await killProcess(identity);
    }
  }

  /** The server on record, if it runs. */
  async #running(): Promise<(ProcessIdentity & DnsRecord) | undefined> {
    const text = await readFileIfThere(this.#record);
    if (text === undefined) return undefined;
    try {
      const record = v.safeParse(recordSchema, JSON.parse(text));
      return record.success && (await isRunning(record.output)) ? record.output : undefined;
    } catch {
      return undefined; // torn by a power cut, which also ended the server
    }
  }

  get #names(): string {
    return join(this.#directory, 'names');
  }

  get #record(): string {
    return join(this.#directory, 'dns.json');
  }
}

/** Waits for its line about the names, which it reads after it listens. Errors: `internal`, `timeout`. */
async function untilServing(identity: ProcessIdentity, output: string): Promise<void> {
  await poll(
    async () => {
      if ((await readFile(output, 'latin1')).includes('read /names/hosts')) return true;
      if (!(await isRunning(identity))) throw new PodvmError('internal', 'dnsmasq ended at once');
      return undefined;
    },
    { everyMs: 10, signal: AbortSignal.timeout(answersWithinMs) },
  );
}

/** Returns the whole command: limits, an unprivileged user, the jail, and dnsmasq as its pid 1. */
function commandOf({ gateway }: BuiltInBridge, names: string, servers: readonly string[]): readonly string[] {
  return [
    ...['prlimit', ...Object.entries(limits).map(([name, value]) => `--${name}=${value}:${value}`), '--'],
    ...['setpriv', `--reuid=${dnsUid}`, `--regid=${dnsUid}`, '--clear-groups', '--no-new-privs'],
    ...['--bounding-set=-all', '--inh-caps=-all', '--'],
    ...[
      'bwrap',
      '--unshare-all',
      '--share-net',
      '--as-pid-1',
      '--info-fd',
      '3',
      '--seccomp',
      '4',
      '--cap-drop',
      'ALL',
      '--clearenv',
    ],
    ...[
      '--setenv',
      markVariable,
      names,
      '--hostname',
      'dns',
      '--ro-bind',
      '/usr',
      '/usr',
      '--dev',
      '/dev',
      '--ro-bind',
      names,
      '/names',
    ],
    ...['bin', 'lib', 'lib64', 'sbin'].flatMap((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ...['--remount-ro', '/', '--chdir', '/', '--'],
    ...[
      '/usr/sbin/dnsmasq',
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--log-facility=-',
      '--pid-file=',
      '--user=',
      '--group=',
    ],
    ...[`--port=${dnsPort}`, `--listen-address=${gateway}`, '--bind-interfaces', '--no-resolv', '--no-hosts'],
    ...['--addn-hosts=/names/hosts', '--local=/cluster.local/', '--domain-needed', '--cache-size=1000'],
    ...[`--dns-forward-max=${maxForwards}`, ...servers.map((server) => `--server=${server}`)],
  ];
}

/** The name servers of the node, also those on its loopback, which the server reaches. */
export function upstreamsOf(resolvConf: string): readonly string[] {
  const found = resolvConf.split('\n').flatMap((line) => {
    const [keyword, address = ''] = line.trim().split(/[\s#;]+/);
    return keyword === 'nameserver' && isIP(address) !== 0 && !address.includes('%') ? [address] : [];
  });
  return [...new Set(found)].slice(0, maxUpstreams);
}
