import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as v from 'valibot';
import { diagnosisSchema } from '#api/finding.ts';
import { run } from '#host/process/run.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const image = 'localhost/podvm/base';

describe('one table of pods', { skip: await whyNoVm(), timeout: 480_000 }, () => {
  let node: CriNode;
  let podSandboxId: string;

  before(async () => {
    process.env['PODVM_CONSOLE'] = 'on'; // a machine from a template may write nothing to its console
    node = await openCriNode();
    const metadata = { name: 'dns', namespace: 'kube-system', uid: 'uid-of-dns', attempt: 0 };
    const config = { metadata, logDirectory: join(node.cli.root, 'pod-logs') };
    ({ podSandboxId } = await node.runtime.runPodSandbox({ config }));
    node.ids.push(podSandboxId);
    const script =
      'echo up; mkdir /tmp/www; echo served >/tmp/www/index.html; exec httpd -f -p 127.0.0.1:80 -h /tmp/www';
    const { containerId } = await node.runtime.createContainer({
      podSandboxId,
      sandboxConfig: config,
      config: {
        metadata: { name: 'main', attempt: 0 },
        image: { image: `${image}:latest` },
        command: ['sh', '-c', script],
        logPath: 'main.log',
      },
    });
    await node.runtime.startContainer({ containerId });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
  });
  const type = async (...args: readonly string[]) => await node.cli.type(args);

  it('has the pods of a kubelet beside those of podvm run, with their owners', async () => {
    assert.equal((await type('run', '-d', '--name', 'web', '--network', 'none', image, 'sleep', '1000')).code, 0);
    const { stdout } = await type('ps');
    assert.match(stdout, /^NAMESPACE +NAME +READY +STATUS +RESTARTS +AGE +OWNER +IP\n/);
    assert.match(stdout, /\nkube-system +dns +1\/1 +Running +0 +\S+ +kubelet +10\./);
    assert.match(stdout, /\ndefault +web +1\/1 +Running +0 +\S+ +podvm +/);
  });

  it('logs, exec, inspect, describe, top, console and port-forward reach it', async () => {
    assert.equal((await type('logs', 'dns')).stdout, 'up\n');
    assert.equal((await type('exec', 'dns', 'hostname')).stdout, 'dns\n');
    const details = JSON.parse((await type('inspect', 'kube-system/dns')).stdout) as Record<string, unknown>;
    assert.deepEqual([details['owner'], details['uid']], ['kubelet', 'uid-of-dns']);
    assert.match((await type('describe', 'dns')).stdout, /kubelet/);
    assert.match((await type('top')).stdout, /\nkube-system\/dns +\d/);
    assert.equal((await type('console', 'dns')).code, 0);
    const forwarding = node.cli.start(['port-forward', 'dns', ':80']);
    await forwarding.shows(/-> 80\n/);
    const [, port] = /:(\d+) -> 80\n/.exec(forwarding.stdout()) ?? [];
    assert.equal((await run('curl', ['-fsS', `http://127.0.0.1:${port}/`])).stdout, 'served\n');
    forwarding.child.kill('SIGINT');
    await forwarding.ended;
  });

  it('doctor examines it from outside and inside, and says what is broken', async () => {
    const { stdout, code } = await type('doctor', 'dns', '-o', 'json');
    const { isHealthy, findings } = v.parse(diagnosisSchema, JSON.parse(stdout));
    const statusOf = (name: string) => findings.find((finding) => finding.name === name)?.status;
    for (const name of ['machine', 'agent', 'clock', 'address', 'gateway', 'mounts of main', 'memory', 'versions'])
      assert.equal(statusOf(name), 'ok', `${name} in ${stdout}`);
    assert.equal(isHealthy, !findings.some(({ status }) => status === 'fail'));
    assert.equal(code, isHealthy ? 0 : 1);
  });

  it('rm, stop and restart are refused with the reason, and the kubelet’s pod keeps running', async () => {
    for (const words of [['rm', '-f'], ['stop'], ['restart']]) {
      const { code, stderr } = await type(...words, 'dns');
      assert.equal(code, 125);
      assert.match(stderr, /^podvm: Cannot \w+ dns: the pod belongs to a kubelet .*\n {2}fix: .*(kubectl|crictl)/);
    }
    const { items } = await node.runtime.listPodSandbox({ filter: { id: podSandboxId } });
    assert.equal(items[0]?.state, 0);
    assert.equal((await type('rm', '-f', 'web')).code, 0);
  });
});
