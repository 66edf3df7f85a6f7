import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openFakeNode } from '#cri/testing/fake-node.ts';
import { launcherName, launcherOf } from '#shim/launcher.ts';
import { withSection } from '../containerd/containerd-config.ts';
import { containerdFindings, delegateFindings } from './doctor-runtimes.ts';

const signal = new AbortController().signal;

async function openHost() {
  const root = await mkdtemp(join(tmpdir(), 'podvm-doctor-'));
  const places = {
    containerd: join(root, 'containerd'),
    systemctl: 'false',
    socket: join(root, 'containerd.sock'),
    configuration: root,
    programs: root,
  };
  const k3s = {
    k3s: 'false',
    systemctl: 'false',
    socket: join(root, 'k3s.sock'),
    configuration: join(root, 'k3s'),
    programs: root,
  };
  const podvm = { shimSocketPath: join(root, 'shim.sock'), version: '1.2.3' };
  await writeFile(places.containerd, `#!/bin/sh\ncat ${root}/config.toml\n`);
  await chmod(places.containerd, 0o755);
  const find = async () => {
    const all = { containerd: places, k3s };
    const [{ status, detail } = { status: 'none', detail: '' }] = await containerdFindings(podvm, all, signal);
    return `${status}: ${detail}`;
  };
  return { root, places, k3s, podvm, find, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

test('doctor finds each obstacle between containerd and podvm, one after another', async () => {
  await using host = await openHost();
  const { root, podvm, places, k3s, find } = host;
  assert.equal(await find(), 'ok: podvm is not one of its runtimes');
  await writeFile(join(root, launcherName), launcherOf(podvm.shimSocketPath, '1.2.2'));
  assert.match(await find(), /^fail: .*containerd-shim-podvm-v2 is of another version of podvm/);
  await writeFile(join(root, launcherName), launcherOf(podvm.shimSocketPath, podvm.version));
  assert.match(await find(), /^fail: Cannot run .*config\.toml: No such file/);
  await writeFile(join(root, 'config.toml'), 'version = 2\n');
  assert.equal(await find(), 'fail: its configuration lacks the runtime podvm');
  await writeFile(join(root, 'config.toml'), 'runtime_type = "io.containerd.podvm.v2"\n');
  assert.match(await find(), /^fail: .*shim\.sock is missing: podvm daemon does not run/);
  await mkdir(podvm.shimSocketPath);
  assert.match(await find(), /^fail: Cannot reach containerd at .*containerd\.sock: /);
  await using node = await openFakeNode();
  const other = { ...places, socket: node.socketPath };
  const [running] = await containerdFindings(podvm, { containerd: other, k3s }, signal);
  assert.equal(running?.detail, 'it runs without the runtime podvm');
});

test('doctor examines the containerd of k3s if podvm was installed there, and both if in both', async () => {
  await using host = await openHost();
  const { root, podvm, places, k3s } = host;
  const findings = async () => {
    const found = await containerdFindings(podvm, { containerd: places, k3s }, signal);
    return found.map(({ name, status, detail }) => `${name}: ${status}: ${detail}`);
  };
  await writeFile(join(root, launcherName), launcherOf(podvm.shimSocketPath, podvm.version));
  await mkdir(k3s.configuration);
  await writeFile(join(k3s.configuration, 'config-v3.toml.tmpl'), withSection('{{ template "base" . }}\n', 3, root));
  assert.deepEqual(await findings(), ['k3s: fail: its configuration lacks the runtime podvm']);
  await writeFile(join(k3s.configuration, 'config.toml'), withSection('version = 3\n', 3, root));
  await mkdir(podvm.shimSocketPath);
  assert.match((await findings()).join('\n'), /^k3s: fail: Cannot reach k3s at .*k3s\.sock: [^\n]*$/);
  await using node = await openFakeNode();
  const other = { containerd: places, k3s: { ...k3s, socket: node.socketPath } };
  const [running] = await containerdFindings(podvm, other, signal);
  assert.equal(running?.fix, 'Restart it: `systemctl restart k3s`, or `k3s-agent` on an agent.');
  await writeFile(join(root, 'config.toml'), withSection('version = 3\n', 3, root));
  assert.match((await findings()).join('\n'), /^containerd: fail: Cannot reach containerd .*\nk3s: fail: /);
});

test('doctor asks the runtime of the setting delegate for its version', async () => {
  assert.deepEqual(await delegateFindings(undefined, signal), []);
  await using node = await openFakeNode();
  const [found] = await delegateFindings({ socketPath: node.socketPath }, signal);
  assert.equal(found?.status, 'ok');
  assert.match(found.detail, /^podvm .*, at \//);
  const [none] = await delegateFindings({ socketPath: join(tmpdir(), 'podvm-no-such.sock') }, signal);
  assert.match(`${none?.status}: ${none?.detail}`, /^fail: Cannot reach the runtime of the setting delegate at /);
});
