import assert from 'node:assert/strict';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';
import { openOrdinaryUser, type OrdinaryUser } from './ordinary-user.ts';

const image = 'localhost/podvm/base';
const published = 18_080;
const claiming = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: kept }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 16Mi } } }
---
apiVersion: v1
kind: Pod
metadata: { name: claiming }
spec:
  restartPolicy: Never
  containers: [{ name: c, image: ${image}, command: ['true'], volumeMounts: [{ name: kept, mountPath: /kept }] }]
  volumes: [{ name: kept, persistentVolumeClaim: { claimName: kept } }]
`;

/** Fetches a page on the user's host, for which a server may still be starting. */
async function fetched(user: OrdinaryUser, url: string): Promise<string> {
  const patience = ['--retry', '30', '--retry-delay', '1', '--retry-all-errors'];
  return (await run('nsenter', [...user.enterHost, 'curl', '-fsS', ...patience, url])).stdout;
}

describe('podvm of an ordinary user', { skip: await whyNoVm(), timeout: 900_000 }, () => {
  let user: OrdinaryUser;
  before(async () => {
    user = await openOrdinaryUser();
  });
  after(async () => {
    await user[Symbol.asyncDispose]();
  });

  it('doctor finds what this user needs', async () => {
    const { code, stdout } = await user.podvm(['doctor']);
    assert.equal(code, 0, stdout);
    const needs = ['uidmap', 'passt', 'subuid', 'subgid', 'user namespaces', '/dev/net/tun', 'assets'];
    for (const name of [...needs, 'network', 'capabilities']) assert.match(stdout, new RegExp(`^ok +${name} `, 'm'));
    assert.match(stdout, /^warn +host limits /m);
    assert.deepEqual(await user.processes(), []);
  });

  it('runs a command and ends with its exit code, without a node in the background', async () => {
    const { code, stdout, stderr } = await user.podvm(['run', '--no-daemon', image, 'sh', '-c', 'id -u; exit 3']);
    assert.deepEqual({ code, stdout }, { code: 3, stdout: '0\n' }, stderr);
    assert.doesNotMatch(stderr, /logins/);
    assert.deepEqual(await user.processes(), []);
  });

  it('keeps a pod in the background, which serves files of the user on a port of the host’s loopback', async () => {
    await user.makeDirectory('data');
    await writeFile(join(user.home, 'secret'), 'of root', { mode: 0o600 });
    const flags = ['--name', 'web', '-p', `127.0.0.1:${published}:80`, '-v', `${user.home}/data:/data`];
    const script = 'echo up; echo made >/data/made; chown 7:8 /data/made; exec httpd -f -h /data';
    const { code, stderr } = await user.podvm(['run', '-d', ...flags, image, 'sh', '-c', script]);
    assert.equal(code, 0, stderr);
    assert.equal(await fetched(user, `http://127.0.0.1:${published}/made`), 'made\n');
    const elsewhere = ['curl', '-sS', '--max-time', '10', `http://${user.address}:${published}/made`];
    assert.equal((await run('nsenter', [...user.enterHost, ...elsewhere], { okCodes: 'any' })).code, 7, 'refused');
  });

  it('gives files of containers to the user, and to subordinate ids', async () => {
    const { code, stderr } = await user.podvm(['exec', 'web', '--', 'touch', '/data/roots']);
    assert.equal(code, 0, stderr);
    const ofRoot = await stat(join(user.home, 'data/roots'));
    assert.deepEqual([ofRoot.uid, ofRoot.gid], [user.uid, user.gid]);
    const ofOther = await stat(join(user.home, 'data/made'));
    assert.deepEqual([ofOther.uid, ofOther.gid], [user.subordinate + 6, user.subordinate + 7]);
  });

  it('shows logs and the pod to its own user, and no file that the user may not read to the pod', async () => {
    assert.match((await user.podvm(['logs', 'web'])).stdout, /^up\n/);
    assert.match((await user.podvm(['ps'])).stdout, /\ndefault +web +/);
    const [, machineMiB] =
      /\ndefault\/web +[\d.]+ +[\d.]+Mi +\S+ +\S+ +([\d.]+)Mi /.exec(
        (await user.podvm(['stats', '--no-stream'])).stdout,
      ) ?? [];
    assert.ok(Number(machineMiB) > 10, `${machineMiB} MiB`);
    const share = ['run', '--rm', '-v', `${user.home}/secret:/secret`, image, 'cat', '/secret'];
    const { code, stdout } = await user.podvm(share);
    assert.notEqual(code, 0);
    assert.equal(stdout, '');
  });

  it('lets the pod reach a server beside the host, but not the loopback of the host', async () => {
    const wget = (port: number) => ['exec', 'web', '--', 'wget', '-T', '10', '-qO-', `http://${user.server}:${port}/`];
    assert.equal((await user.podvm(wget(user.serverPort))).stdout, 'beside the host\n');
    // By default, pasta takes connections to the gateway, which the server is here, to the loopback of the host.
    assert.equal(await fetched(user, `http://127.0.0.1:${user.loopbackPort}/`), 'on the loopback\n');
    const { code, stdout } = await user.podvm(wget(user.loopbackPort));
    assert.notEqual(code, 0);
    assert.equal(stdout, '');
  });

  it('refuses what only root can do, by name', async () => {
    const daemon = await user.podvm(['daemon']);
    assert.match(daemon.stderr, /^podvm: Cannot [^\n]*root[^]*fix: /);
    const low = await user.podvm(['run', '-p', '127.0.0.1:80:80', image, 'true']);
    assert.match(low.stderr, /host port 127\.0\.0\.1:80\/TCP: this user may not listen there/);
    const claim = await user.podvm(['run', '--network', 'none', '-'], claiming);
    assert.match(claim.stderr, /only root can give a pod a disk of the host/);
    assert.notEqual(claim.code, 0);
    const { code, stderr } = await user.podvm(['volume', 'rm', 'kept']); // uninstall would keep it
    assert.equal(code, 0, stderr);
  });

  it('gives the pod to the next node when a node is killed', async () => {
    const ready = join(user.state, 'node.ready');
    const { pid } = JSON.parse(await readFile(ready, 'utf8')) as { pid: number };
    process.kill(pid, 'SIGKILL');
    const { code, stdout, stderr } = await user.podvm(['exec', 'web', '--', 'cat', '/data/made']);
    assert.deepEqual({ code, stdout }, { code: 0, stdout: 'made\n' }, stderr);
    assert.notEqual((JSON.parse(await readFile(ready, 'utf8')) as { pid: number }).pid, pid);
    assert.equal(await fetched(user, `http://127.0.0.1:${published}/made`), 'made\n');
  });

  it('uses the node of root as a member of its socket group, and not otherwise', async () => {
    const { stdout: group } = await run('id', ['-gn', String(user.uid)]);
    await using others = await openCliNode({ isSetUp: true, startsNode: true });
    await using roots = await openCliNode({ isSetUp: true, startsNode: true, socketGroup: group.trim() });
    try {
      const begun = await roots.type(['run', '-d', '--network', 'none', '--name', 'of-root', image, 'sleep', '10000']);
      assert.equal(begun.code, 0, begun.stderr);
      const { code, stdout, stderr } = await user.podvm(['--root', roots.root, 'exec', 'of-root', 'hostname']);
      assert.deepEqual({ code, stdout }, { code: 0, stdout: 'of-root\n' }, stderr);
      assert.equal((await others.type(['image', 'build-base'])).code, 0); // starts its node
      const refused = await user.podvm(['--root', others.root, 'top']);
      assert.match(refused.stderr, /this user may not connect\n {2}fix: .*socketGroup/);
    } finally {
      for (const node of [roots, others]) await node.type(['uninstall']);
    }
  });

  it('leaves nothing after uninstall', async () => {
    const stopped = await user.podvm(['stop', '--grace', '1', 'web']);
    assert.equal(stopped.code, 0, stopped.stderr);
    const { code, stdout, stderr } = await user.podvm(['uninstall', '--state']);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^state removed\n$/m);
    // The last to leave the namespaces may be the process that has started the node.
    const isOver = async () => ((await user.processes()).length === 0 ? true : undefined);
    await poll(isOver, { everyMs: 100, signal: AbortSignal.timeout(60_000) });
    assert.deepEqual(await user.processes(), []);
    assert.deepEqual((await readdir(join(user.home, '.local/share'))).toSorted(), []);
  });
});
