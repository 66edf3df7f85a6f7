import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { PodSandboxState } from '#cri/schema/api_pb.ts';
import { identify, isRunning, type ProcessIdentity } from '#host/process/process-identity.ts';
import { poll } from '#host/wait.ts';
import { logLines } from '../log-lines.ts';
import { repo } from '../vm/cli-node.ts';
import { type CriNode, openCriNode, startPod } from '../vm/cri-node.ts';
import { checkOutBuild } from './checked-out-build.ts';

/*
 * `npm run upgrade-from -- COMMIT`: pods of the build of an earlier commit, with its agent, records, parts and arguments of
 * QEMU, must outlive the upgrade to the checkout. Pods of both builds must outlive the way back, on which the older
 * build may leave those of the newer one alone, and the next upgrade. Needs root and the result of `podvm setup`; the older
 * build installs its own packages and makes its own parts.
 */
const deadlineMs = 300_000;
const image = 'localhost/podvm/base:latest';
const checkout = join(repo, 'podvm');
const script = 'nc -ll -p 7 -e cat & i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done';
const say = (text: string) => process.stderr.write(`upgrade-from: ${text}\n`);

/** A pod that prints numbers, and an open connection to it. */
interface Pod {
  readonly name: string;
  readonly isOwn: boolean;
  readonly machine: ProcessIdentity;
  readonly socket: Socket;
  /** Pid of its machine, as the daemon that serves now has it. */
  readonly pid: () => Promise<number>;
  readonly numbers: () => Promise<readonly number[]>;
  readonly exec: () => Promise<string>;
}

/** Runs pods on a node whose daemons change. `program`: that of the daemon that serves now. */
class Pods implements Disposable {
  readonly #node: CriNode;
  readonly all: Pod[] = [];
  program = checkout;

  constructor(node: CriNode) {
    this.#node = node;
  }

  async replaceDaemon(how: 'SIGKILL' | 'SIGTERM', program: string): Promise<void> {
    await this.#node.end(how);
    this.program = program;
    await this.#node.start(program);
  }

  async type(...args: readonly string[]) {
    return await this.#node.cli.start(args, '', this.program).ended;
  }

  async #typed(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.type(...args);
    assert.equal(code, 0, `podvm ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** Starts a pod of a client of CRI. */
  async startOfCri(name: string): Promise<void> {
    const { podSandboxId, containerId, log } = await startPod(this.#node, name, script);
    const statusOf = () => this.#node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const { status } = await statusOf();
    await this.#begin({
      ...{ name, isOwn: false, ip: status?.network?.ip ?? '' },
      pid: async () => {
        const now = await statusOf();
        assert.equal(now.status?.state, PodSandboxState.SANDBOX_READY);
        // SAFE: an answer of a program under test, which the assertions check
        return (JSON.parse(now.info['info'] ?? '{}') as { pid?: number }).pid ?? 0;
      },
      numbers: async () => (await logLines(log)).map(Number),
      exec: async () => {
        const said = await this.#node.runtime.execSync({ containerId, cmd: ['echo', 'here'], timeout: 60n });
        return Buffer.from(said.stdout).toString().trim();
      },
    });
  }

  /** Starts a pod of `podvm run`. */
  async startOwn(name: string): Promise<void> {
    await this.#typed('run', '--detach', '--name', name, image, 'sh', '-c', script);
    const inspect = async () =>
      // SAFE: as above
      JSON.parse(await this.#typed('inspect', name)) as { sandbox?: { vmmPid?: number }; addresses?: string[] };
    await this.#begin({
      ...{ name, isOwn: true, ip: (await inspect()).addresses?.[0] ?? '' },
      pid: async () => (await inspect()).sandbox?.vmmPid ?? 0,
      numbers: async () => (await this.#typed('logs', name)).trim().split('\n').map(Number),
      exec: async () => (await this.#typed('exec', name, '--', 'echo', 'here')).trim(),
    });
  }

  async #begin({ ip, ...pod }: Omit<Pod, 'machine' | 'socket'> & { readonly ip: string }): Promise<void> {
    const machine = (await identify(await pod.pid())) ?? assert.fail(`${pod.name} has no machine`);
    const socket = await until(`${pod.name} listens`, () => connect(ip));
    const begun = { ...pod, machine, socket };
    this.all.push(begun);
    await this.goesOn(begun);
  }

  /** Asserts that the daemon serves the pod as before: the same machine, every line of its log, commands, its connection. */
  async goesOn(pod: Pod): Promise<void> {
    const { name, pid, numbers, machine } = pod;
    assert.equal(await pid(), machine.pid, `${name} has another machine`);
    const seen = (await numbers()).length;
    await until(`more lines of ${name}`, async () => (await numbers()).length > seen + 5 || undefined);
    const wrong = (await numbers()).findIndex((number, at) => number !== at + 1);
    assert.equal(wrong, -1, `${name}: a line is lost or repeated`);
    assert.equal(await pod.exec(), 'here');
    await this.isReached(pod);
  }

  async isReached({ name, machine, socket }: Pod): Promise<void> {
    assert.ok(await isRunning(machine), `the machine of ${name} has ended`);
    const answer = once(socket, 'data', { signal: AbortSignal.timeout(deadlineMs) });
    socket.write('ping');
    assert.equal(String((await answer)[0]), 'ping');
  }

  /** Another container in a machine of another build. */
  async addContainer(name: string): Promise<void> {
    const { runtime, ids } = this.#node;
    const [podSandboxId = ''] = ids;
    const sandboxConfig = { metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 } };
    const config = { metadata: { name: 'added' }, image: { image }, command: ['sleep', '1000'] };
    const { containerId } = await runtime.createContainer({ podSandboxId, sandboxConfig, config });
    await runtime.startContainer({ containerId });
    const { stdout } = await runtime.execSync({ containerId, cmd: ['echo', 'added'], timeout: 60n });
    assert.equal(Buffer.from(stdout).toString(), 'added\n');
  }

  async removeOwn(): Promise<void> {
    for (const { name } of this.all.filter(({ isOwn }) => isOwn)) {
      await this.#typed('stop', '--grace', '1', name);
      await this.#typed('rm', name);
    }
  }

  [Symbol.dispose](): void {
    for (const { socket } of this.all) socket.destroy();
  }
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 200, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

async function connect(host: string): Promise<Socket | undefined> {
  const socket = createConnection({ host, port: 7 });
  try {
    await once(socket, 'connect');
    return socket;
  } catch {
    socket.destroy();
    return undefined; // it does not listen yet
  }
}

async function main(commit: string): Promise<void> {
  const { promise: interrupted, reject: interrupt } = Promise.withResolvers<never>();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt(new Error(`${name} came`)));
  await using undo = new AsyncDisposableStack();
  await Promise.race([outliveUpgrade(commit, undo), interrupted]);
}

async function outliveUpgrade(commit: string, undo: AsyncDisposableStack): Promise<void> {
  const older = undo.use(await checkOutBuild(commit));
  const node = undo.use(await openCriNode());
  const pods = undo.use(new Pods(node));
  const start = async (age: 'older' | 'newer', isWithOwn: boolean) => {
    await pods.startOfCri(age);
    if (isWithOwn) await pods.startOwn(`${age}-own`);
  };
  const allGoOn = async () => {
    for (const pod of pods.all) await pods.goesOn(pod);
  };

  await pods.replaceDaemon('SIGTERM', older.program);
  await start('older', older.keepsOwnPods);
  const olderPods = new Set(pods.all);
  say(`pods of ${commit} run: ${pods.all.map(({ name }) => name).join(', ')}`);

  await pods.replaceDaemon('SIGKILL', checkout);
  await allGoOn();
  await pods.addContainer('older');
  say('upgrade: all pods are taken over, and their machines take new containers');
  await start('newer', true);

  await pods.replaceDaemon('SIGTERM', older.program);
  for (const pod of pods.all) {
    await pods.isReached(pod);
    const isServed = olderPods.has(pod) || (await pod.exec().catch(() => undefined)) === 'here';
    if (isServed) await pods.goesOn(pod);
    say(`downgrade: ${pod.name} runs on, and is ${isServed ? 'taken over' : 'left alone'}`);
  }

  await pods.replaceDaemon('SIGKILL', checkout);
  await allGoOn();
  say('second upgrade: all pods are taken over');
  await pods.removeOwn();
}

const [, , commit] = process.argv;
try {
  assert.ok(commit, 'usage: npm run upgrade-from -- COMMIT');
  await main(commit);
  say('passed: pods outlive the upgrade, and the way back');
} catch (error) {
  say(`FAILED: ${error instanceof Error ? error.stack : messageOf(error)}`);
  process.exit(1); // what it waited for, when it was interrupted, may not come
}
