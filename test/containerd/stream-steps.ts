import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { execSync, type Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** Connections of users to running containers. */
export const streamSteps: Steps<Tour> = [
  ['commands run with and without a terminal, with input, exit codes and sizes that change', execs],
  ['ports are forwarded, also to what listens on 127.0.0.1 in the pod', forwards],
  ['attaching talks to a shell, whose terminal has our size', attaches],
  ['a container that is added for debugging is in the pod; that of one other container’s processes is refused', debugs],
];

async function execs({ crictl, main }: Tour): Promise<void> {
  const { stdout, stderr } = await crictl.try(['exec', main, 'sh', '-c', 'echo out; echo err >&2; exit 7']);
  assert.equal(stdout, 'out\n');
  assert.match(stderr, /^err\n[^]*exit code 7/);
  const input = randomBytes(1024 * 1024);
  const summed = await crictl.try(['exec', '-i', main, 'sha256sum'], input);
  assert.equal(summed.stdout.split(' ')[0], createHash('sha256').update(input).digest('hex'));
  const script = [
    `${untilSize('31 99')}; tty; read answer; echo "got $answer"`,
    `${untilSize('40 120')}; echo resized; exit 3`,
  ];
  await using typed = crictl.type('exec', '-it', main, 'sh', '-c', script.join('; '));
  await typed.says(/\/dev\/pts\/\d+/);
  typed.write('forty-two\n');
  await typed.says(/got forty-two/);
  await typed.resize(40, 120);
  await typed.says(/resized/);
  await typed.says(/exit code 3/);
  assert.equal(await typed.ends(), 1);
}

const untilSize = (size: string) => `until [ "$(stty size)" = "${size}" ]; do sleep 0.1; done`;

async function forwards({ crictl, pod, main, fetch }: Tour): Promise<void> {
  await execSync(crictl, main, 'sh', '-c', 'mkdir -p /own; echo own >/own/index.html; httpd -p 127.0.0.1:8090 -h /own');
  await using forwarding = crictl.begin('port-forward', pod.id, '18090:8090', '18091:8091');
  await forwarding.says(/Forwarding from 127\.0\.0\.1:18091/);
  for (let turn = 0; turn < 3; turn += 1) assert.equal(await fetch('http://127.0.0.1:18090/'), 'own\n');
  await assert.rejects(fetch('http://127.0.0.1:18091/'), /ended with code 1/);
}

async function attaches({ crictl, pod }: Tour): Promise<void> {
  const id = await pod.start('shell', '', { command: ['sh'], stdin: true, tty: true });
  await using typed = crictl.type('attach', '-it', id);
  typed.write(`${untilSize('31 99')}; echo "sum: $((40 + 2))"; ${untilSize('40 120')}; exit 5\n`);
  await typed.says(/sum: 42/);
  await typed.resize(40, 120);
  assert.equal((await pod.ended(id)).exitCode, 5);
  await crictl.run('rm', id);
}

/** As a kubelet adds an ephemeral container. */
async function debugs({ crictl, pod, main }: Tour): Promise<void> {
  const id = await pod.start('debugger', '', { command: ['sh'], stdin: true, tty: true });
  await using typed = crictl.type('attach', '-it', id);
  typed.write('ip -4 -o address show eth0; echo "looked: $((40 + 2))"; exit 6\n');
  await typed.says(new RegExp(`inet ${(await pod.address()).replaceAll('.', '\\.')}/`));
  await typed.says(/looked: 42/);
  assert.equal((await pod.ended(id)).exitCode, 6);
  await crictl.run('rm', id);
  const ofMain = { linux: { security_context: { namespace_options: { pid: 3, target_id: main } } } };
  const targets = await pod.create('targets', 'true', ofMain); // containerd asks podvm when it starts
  const { code, stderr } = await crictl.try(['start', targets]);
  assert.equal(code, 1);
  assert.match(stderr, /share the processes of one other container/);
  await crictl.run('rm', targets);
  assert.equal(await execSync(crictl, main, 'echo', 'here'), 'here');
}
