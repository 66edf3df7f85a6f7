import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

const from = (path: string) => JSON.stringify(join(import.meta.dirname, '..', path));
/** `/path`, `@abstract` or a port of the loopback. */
const addressOf = (text: string): NetConnectOpts =>
  text.startsWith('/') || text.startsWith('@')
    ? { path: text.replace('@', '\0') }
    : { host: '127.0.0.1', port: Number(text) };

/** Connects, and resolves when the other end has closed or refused the connection. */
async function meet(address: string): Promise<void> {
  const socket = connect(addressOf(address));
  socket.on('error', () => undefined);
  socket.resume();
  await once(socket, 'close');
}

test(
  'every server disconnects its clients while the descriptor table is full, and serves again afterwards',
  { timeout: 120_000 },
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-short-'));
    const script = `
    import { closeSync, openSync } from 'node:fs';
    import { createInterface } from 'node:readline';
    import { serveRoutes } from ${from('admin/serve-routes.ts')};
    import { serveMonitoring } from ${from('admin/routes/monitoring-server.ts')};
    import { serveAdmin } from ${from('admin/server.ts')};
    import { serveGrpc } from ${from('cri/rpc/serve-grpc.ts')};
    import { defaultStreamingSettings, serveStreaming } from ${from('cri/streaming/server.ts')};
    import { announce } from ${from('host/socket/announcement.ts')};
    import { descriptors } from ${from('host/process/descriptors.ts')};
    import { silentLog } from ${from('host/log/log.ts')};
    import { systemClock } from ${from('host/clock.ts')};
    import { listenTcp } from ${from('network/ports/tcp-forward.ts')};
    import { openDoorway } from ${from('vm/qemu/qmp/accept-one.ts')};
    const directory = ${JSON.stringify(directory)};
    process.env['TMPDIR'] = directory;
    const parts = { log: silentLog, clock: systemClock };
    const forwardedPort = 22_873; // below those that the kernel gives to others
    await serveAdmin(directory + '/admin', { ...parts, sandboxes: {}, images: {}, pods: {}, monitoring: {}, diskUsage: {},
      ended: { list: () => [] }, cronJobsPath: directory + '/cron-jobs.json', jobsDirectory: directory + '/jobs',
      services: { path: directory + '/services.json', network: {} } });
    const { port: monitoringPort } = await serveMonitoring({ address: '127.0.0.1', port: 0, clients: 'local' }, {});
    const { socketPath: routes } = await serveRoutes({});
    await serveGrpc(directory + '/cri', () => {});
    await announce('podvm test ' + process.pid, 'it');
    await openDoorway(directory + '/door', process.getgid());
    await listenTcp({ address: '127.0.0.1', port: forwardedPort, protocol: 'TCP' }, () => undefined);
    const { baseUrl } = await serveStreaming(defaultStreamingSettings, parts);
    descriptors.hold((isShort) => console.log(isShort ? 'short' : 'enough'));
    const taken = [];
    console.log([directory + '/admin', routes, directory + '/cri', '@podvm test ' + process.pid,
      directory + '/door', forwardedPort, new URL(baseUrl).port, monitoringPort].join(','));
    for await (const line of createInterface({ input: process.stdin })) {
      if (line === 'take') try { for (;;) taken.push(openSync('/dev/null')); } catch {}
      if (line === 'give') for (const fd of taken.splice(0)) closeSync(fd);
      console.log('done');
    }
    process.exit(0);`;
    const args = ['-c', 'ulimit -n 256 && exec "$@"', 'sh', process.execPath, '--input-type=module-typescript', '-e'];
    const child = spawn('bash', [...args, script], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () => {
      const { value, done } = await lines.next();
      assert.ok(done !== true, 'the process has ended');
      return value;
    };
    const ask = async (line: string) => {
      child.stdin.write(`${line}\n`);
      while ((await next()) !== 'done'); // it also reports a shortage
    };
    try {
      const addresses = (await next()).split(',');
      for (let round = 0; round < 3; round += 1) {
        for (const address of addresses) {
          await ask('take'); // from the second time on, also the reserve
          await meet(address);
        }
      }
      await ask('give');
      const answer = await fetch(`http://127.0.0.1:${addresses.at(-1)}/`);
      assert.equal(answer.status, 404);
      assert.equal(child.exitCode, null);
      child.stdin.end();
      assert.deepEqual(await once(child, 'exit'), [0, null]);
    } finally {
      child.kill('SIGKILL');
      await rm(directory, { recursive: true });
    }
  },
);
