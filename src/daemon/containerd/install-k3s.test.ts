import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { serveFakeDelegate } from '#cri/testing/fake-delegate.ts';
import type { InstallChoices } from './install-containerd.ts';
import { installK3s, isInK3s, type K3sPlaces, uninstallK3s } from './install-k3s.ts';

const signal = new AbortController().signal;
const podvm = { shimSocketPath: '/run/podvm/shim.sock', version: '1.2.3' };

/** A node whose k3s reports its version, and has made this configuration. */
async function openNode(version: string, made?: string) {
  const root = await mkdtemp(join(tmpdir(), 'podvm-k3s-'));
  const places: K3sPlaces = {
    k3s: join(root, 'k3s'),
    systemctl: join(root, 'systemctl'),
    socket: join(root, 'containerd.sock'),
    configuration: join(root, 'etc'),
    programs: join(root, 'bin'),
  };
  const scripts = {
    [places.k3s]: `echo 'k3s version ${version} (1a2b3c)'; echo 'go version go1.25.0'`,
    [places.systemctl]: `case $1 in is-active) test -e ${root}/agent ;; *) echo "$*" >>${root}/restarts ;; esac`,
  };
  for (const [path, script] of Object.entries(scripts)) {
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
  }
  await mkdir(places.configuration);
  if (made !== undefined) await writeFile(join(places.configuration, 'config.toml'), made);
  return { root, places, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

const install = (places: K3sPlaces, choices: Partial<InstallChoices> = {}) =>
  installK3s(podvm, { isDry: false, restarts: false, ...choices }, places, signal);

const v3 = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n";
const v2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n';

for (const [version, made, name, section] of [
  ['v1.33.4+k3s1', v3, 'config-v3.toml.tmpl', 'io.containerd.cri.v1.runtime'],
  ['v1.30.2+k3s1', v2, 'config.toml.tmpl', 'io.containerd.grpc.v1.cri'],
] as const) {
  test(`installK3s() adds to the template of ${version}, again to what k3s made of it; uninstallK3s() removes it`, async () => {
    await using node = await openNode(version, made);
    const template = join(node.places.configuration, name);
    const said = await install(node.places);
    assert.ok(said.startsWith(`k3s ${version.slice(1)}\nadded the runtime podvm to ${template}\nwrote `), said);
    assert.match(said, /\nthen restart k3s \(`systemctl restart k3s`\)/);
    const text = await readFile(template, 'utf8');
    assert.ok(text.startsWith('{{ template "base" . }}\n# Made by podvm: begin'), text);
    assert.ok(text.includes(`[plugins."${section}".containerd.runtimes.podvm]\n`), text);
    const launcher = await readFile(join(node.places.programs, 'containerd-shim-podvm-v2'), 'utf8');
    assert.match(launcher, /unix:\/\/\/run\/podvm\/shim\.sock/);
    assert.ok(await isInK3s(node.places));
    // As k3s does at its start.
    await writeFile(join(node.places.configuration, 'config.toml'), text.replace('{{ template "base" . }}\n', made));
    assert.equal(await install(node.places), said);
    assert.equal(await readFile(template, 'utf8'), text);
    assert.deepEqual(await uninstallK3s(node.places), [template]);
    assert.deepEqual(await readdir(node.places.configuration), ['config.toml']);
    assert.ok(!(await isInK3s(node.places)));
  });
}

test("installK3s() keeps an administrator's template, of which k3s makes the configuration", async () => {
  await using node = await openNode('v1.33.4+k3s1', v3);
  const template = join(node.places.configuration, 'config-v3.toml.tmpl');
  const own = '{{ template "base" . }}\n[plugins.own]';
  await writeFile(template, own);
  await install(node.places);
  assert.ok((await readFile(template, 'utf8')).startsWith(`${own}\n# Made by podvm: begin`));
  await uninstallK3s(node.places);
  assert.equal(await readFile(template, 'utf8'), `${own}\n`);
  assert.deepEqual((await readdir(node.places.configuration)).sort(), ['config-v3.toml.tmpl', 'config.toml']);
});

test('installK3s() restarts the service of k3s on request, and runs a pod there', async () => {
  await using node = await openNode('v1.33.4+k3s1', v3);
  await using containerd = await serveFakeDelegate(node.places.socket);
  await install(node.places, { restarts: true });
  await writeFile(join(node.root, 'agent'), '');
  assert.match(await install(node.places, { restarts: true }), /\nrestarted k3s, and ran a pod of podvm there;/);
  assert.equal(await readFile(join(node.root, 'restarts'), 'utf8'), 'restart k3s\nrestart k3s-agent\n');
  assert.equal(containerd.calls.filter((call) => call === 'runPodSandbox').length, 2);
  assert.equal(containerd.pods.size, 0);
});

test('installK3s() writes nothing in a dry run, or for a k3s that it cannot change', async () => {
  await using node = await openNode('v1.33.4+k3s1', v3);
  assert.match(await install(node.places, { isDry: true }), /would write .*config-v3\.toml\.tmpl\n {4}\{\{ template/);
  assert.deepEqual(await readdir(node.places.configuration), ['config.toml']);
  const refused = async (message: RegExp, places: K3sPlaces = node.places) => {
    await assert.rejects(install(places), { kind: 'failedPrecondition', message });
  };
  await refused(/this node has none$/, { ...node.places, k3s: join(node.root, 'none') });
  await writeFile(join(node.places.configuration, 'config.toml'), `${v3}[plugins.'x'.containerd.runtimes.'podvm']\n`);
  await refused(/k3s has a runtime podvm already$/);
  await rm(join(node.places.configuration, 'config.toml'));
  await refused(/config\.toml is missing$/);
  assert.ok(!(await readdir(node.root)).includes('bin'));
  await using old = await openNode('v1.27.16+k3s1', v2);
  await refused(/v?1\.27\.16\+k3s1 is older than 1\.28\.1$/, old.places);
  await using recent = await openNode('v1.28.1+k3s1', v2);
  await install(recent.places);
});
