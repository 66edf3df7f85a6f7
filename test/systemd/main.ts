import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { PodSandboxState, RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { poll } from '#host/wait.ts';
import { logLines } from '../log-lines.ts';
import { openCliNode, repo } from '../vm/cli-node.ts';
import { makeAnotherBuild } from '../vm/make-another-build.ts';
import { SystemdHost } from './systemd-host.ts';

/*
 * `npm run systemd`: the unit of `examples/podvm.service` under a systemd of its own. A pod of a kubelet and one of `podvm
 * run` must outlive its restart, its stop, a killed daemon, and an upgrade as the Debian package does it: other files
 * at the same path, then `systemctl try-restart`. Needs root, the result of `podvm setup`, and systemd.
 */
const deadlineMs = 300_000;
const image = { image: 'localhost/podvm/base:latest' };
const say = (text: string) => process.stderr.write(`systemd: ${text}\n`);
const count = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done';
const echo = 'nc -ll -p 7 -e cat &';

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 200, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

async function main(): Promise<void> {
  const { promise: interrupted, reject: interrupt } = Promise.withResolvers<never>();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt(new Error(`${name} came`)));
  await using undo = new AsyncDisposableStack();
  await Promise.race([outliveService(undo), interrupted]);
}

async function outliveService(undo: AsyncDisposableStack): Promise<void> {
  const cli = undo.use(await openCliNode({ isSetUp: true }));
  const another = undo.use(await makeAnotherBuild());
  const environment = { PODVM_ROOT: cli.root, PODVM_POOL: '0' };
  const settings = Object.entries(environment).map(([name, value]) => `Environment=${name}=${value}\n`);
  const unit = await readFile(join(repo, 'examples/podvm.service'), 'utf8');
  const host = undo.use(await SystemdHost.start(unit, `[Service]\n${settings.join('')}`));
  const podvm = async (...words: readonly string[]) =>
    (await host.type(['/opt/podvm/podvm', ...words], environment)).stdout;
  const systemctl = async (...words: readonly string[]) => await host.type(['systemctl', ...words]);
  const install = async (program: string) => await host.type(['ln', '-sfn', program, '/opt/podvm']);
  const serving = async (before: string) =>
    await until('the service is active, with another process', async () => {
      const { state, pid } = await host.service();
      return state === 'active' && pid !== before ? pid : undefined;
    });
  const call = async <T>(act: (runtime: ReturnType<typeof clientOf>) => Promise<T>): Promise<T> => {
    using client = connectTestClient(join(cli.root, 'cri.sock'));
    return await act(client.of(RuntimeService));
  };
  const clientOf = (client: ReturnType<typeof connectTestClient>) => client.of(RuntimeService);

  await install(repo);
  await systemctl('start', 'podvm');
  say(`the service is ${(await host.service()).state}`);
  const sandboxConfig = {
    metadata: { name: 'cri', namespace: 'default', uid: 'uid-of-cri', attempt: 0 },
    logDirectory: join(cli.root, 'pod-logs'),
  };
  const { podSandboxId, ip } = await call(async (runtime) => {
    const made = await runtime.runPodSandbox({ config: sandboxConfig });
    const config = {
      metadata: { name: 'main' },
      image,
      command: ['sh', '-c', `${echo} ${count}`],
      logPath: 'main.log',
    };
    const { containerId } = await runtime.createContainer({ podSandboxId: made.podSandboxId, sandboxConfig, config });
    await runtime.startContainer({ containerId });
    const { status } = await runtime.podSandboxStatus({ podSandboxId: made.podSandboxId });
    return { podSandboxId: made.podSandboxId, ip: status?.network?.ip ?? assert.fail('no address') };
  });
  const file = join(cli.root, 'own.yaml');
  await writeFile(
    file,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'own' },
      spec: { containers: [{ name: 'main', ...image, command: ['sh', '-c', count] }] },
    }),
  );
  await podvm('run', '--detach', file);
  const socket = createConnection({ host: ip, port: 7 });
  undo.defer(() => void socket.destroy());
  await once(socket, 'connect');

  const machines = async () => {
    const { info, status } = await call((runtime) => runtime.podSandboxStatus({ podSandboxId, verbose: true }));
    assert.equal(status?.state, PodSandboxState.SANDBOX_READY);
    // SAFE: answers of the program under test
    const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
    const own = JSON.parse(await podvm('inspect', 'own')) as { sandbox: { vmmPid: number }; restarts: number };
    assert.equal(own.restarts, 0);
    return [pid, own.sandbox.vmmPid];
  };
  const numbers = {
    cri: async () => (await logLines(join(sandboxConfig.logDirectory, 'main.log'))).map(Number),
    own: async () => (await podvm('logs', 'own')).trim().split('\n').map(Number),
  };
  const before = await machines();
  for (const pid of before) {
    const { stdout } = await host.type(['cat', `/proc/${pid}/cgroup`]);
    // Its limits are not those of the service. Only the hierarchy by which systemd knows processes has it there.
    assert.doesNotMatch(stdout, /:(?:memory|pids|cpu|cpu,cpuacct):.*podvm\.service/);
  }
  const goOn = async () => {
    assert.deepEqual(await machines(), before, 'a machine was replaced');
    for (const [name, read] of Object.entries(numbers)) {
      const seen = (await read()).length;
      await until(`more lines of ${name}`, async () => (await read()).length > seen + 5 || undefined);
      const wrong = (await read()).findIndex((number, at) => number !== at + 1);
      assert.equal(wrong, -1, `${name}: a line is lost or repeated`);
    }
    socket.write('ping');
    const [answer] = await once(socket, 'data', { signal: AbortSignal.timeout(deadlineMs) });
    assert.equal(String(answer), 'ping');
  };
  await goOn();

  const steps: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['systemctl restart', () => systemctl('restart', 'podvm')],
    [
      'SIGKILL of the daemon, which systemd starts again',
      () => systemctl('kill', '--kill-whom=main', '--signal=KILL', 'podvm'),
    ],
    [
      'systemctl stop, and start',
      async () => {
        await systemctl('stop', 'podvm');
        assert.equal((await host.service()).state, 'inactive');
        await systemctl('start', 'podvm');
      },
    ],
    [
      'an upgrade: other files, and try-restart',
      async () => {
        await install(join(another.program, '..'));
        await systemctl('daemon-reload');
        await systemctl('try-restart', 'podvm');
      },
    ],
    [
      'a downgrade',
      async () => {
        await install(repo);
        await systemctl('try-restart', 'podvm');
      },
    ],
    ['daemon-reexec of systemd', () => systemctl('daemon-reexec')],
  ];
  for (const [what, act] of steps) {
    const { pid } = await host.service();
    await act();
    await serving(what.startsWith('daemon-reexec') ? '' : pid);
    await goOn();
    say(`${what}: both pods run on`);
  }
  await podvm('drain');
  await call((runtime) => runtime.removePodSandbox({ podSandboxId }));
  await podvm('rm', 'own').catch(() => undefined); // gone already, if the drain has removed it
  await systemctl('stop', 'podvm');
  for (const pid of before) {
    const { stdout } = await host.type(['sh', '-c', `cat /proc/${pid}/comm 2>/dev/null || echo gone`]);
    assert.equal(stdout.trim(), 'gone');
  }
}

try {
  await main();
  say('passed: pods outlive the service');
} catch (error) {
  say(`FAILED: ${error instanceof Error ? error.stack : messageOf(error)}`);
  process.exit(1); // what it waited for, when it was interrupted, may not come
}
