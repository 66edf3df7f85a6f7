import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Finding } from '#api/finding.ts';
import { installContainerd, mainPath, uninstallContainerd } from '#daemon/containerd/install-containerd.ts';
import { containerdFindings } from '#daemon/doctor/doctor-runtimes.ts';
import { isThere, readFileIfThere } from '#host/file/files.ts';
import { poll } from '#host/wait.ts';
import { launcherName } from '#shim/launcher.ts';
import { Pod } from './pod.ts';
import { execSync, type Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** Installing podvm in containerd and removing it. The last steps: the tour's pod of podvm ends with the first one. */
export const installSteps: Steps<Tour> = [
  ['podvm is uninstalled from containerd, whose pods of runc go on', isUninstalled],
  ['a dry run of the installation tells what it would write, and writes nothing', isDry],
  ['the installation restarts containerd and runs a pod there, and pods of podvm run again', isInstalled],
];

const within = () => AbortSignal.timeout(180_000);
const placesOf = ({ containerd }: Tour) => containerd.places.containerd;

/** The files that an installation may write, with their content. */
async function filesOf(tour: Tour): Promise<readonly (string | undefined)[]> {
  const places = placesOf(tour);
  const files = [
    mainPath(places),
    join(places.configuration, 'conf.d/podvm.toml'),
    join(places.programs, launcherName),
  ];
  return await Promise.all(files.map((file) => readFileIfThere(file)));
}

async function assertFinding(tour: Tour, detail: string): Promise<void> {
  const found: readonly Finding[] = await containerdFindings(tour.podvm, tour.containerd.places, within());
  assert.deepEqual(found, [{ name: 'containerd', status: 'ok', detail }]);
}

async function isUninstalled(tour: Tour): Promise<void> {
  const { crictl, containerd, work, pod, beside } = tour;
  await pod.remove();
  const removed = await uninstallContainerd(placesOf(tour));
  assert.equal(removed.length, 2, removed.join(' '));
  const [main = '', part, launcher] = await filesOf(tour);
  assert.deepEqual([main.includes('runtimes.podvm]'), part, launcher], [false, undefined, undefined]);
  await containerd.restart();
  await assertFinding(tour, 'podvm is not one of its runtimes');
  await assert.rejects(Pod.run(crictl, work, 'without', 'podvm'), /no runtime for \\?"podvm\\?" is configured/);
  assert.equal(await execSync(crictl, beside, 'echo', 'here'), 'here');
}

async function isDry(tour: Tour): Promise<void> {
  const before = await filesOf(tour);
  const said = await installContainerd(tour.podvm, { isDry: true, restarts: true }, placesOf(tour), within());
  assert.match(said, new RegExp(`^would write .*/${launcherName}$`, 'm'));
  assert.match(said, /^ +runtime_type = "io\.containerd\.podvm\.v2"$/m);
  assert.deepEqual(await filesOf(tour), before);
}

async function isInstalled(tour: Tour): Promise<void> {
  const { crictl, containerd, podvm, work, beside } = tour;
  const [asked, done] = [join(work, 'restart-asked'), join(work, 'restart-done')];
  const systemctl = join(work, 'systemctl'); // the service manager of this containerd is the test
  const script = `#!/bin/sh\necho "$*" >'${asked}'; until [ -e '${done}' ]; do sleep 0.2; done\n`;
  await writeFile(systemctl, script, { mode: 0o755 });
  const installing = installContainerd(
    podvm,
    { isDry: false, restarts: true },
    { ...placesOf(tour), systemctl },
    within(),
  );
  const restarting = (async () => {
    const isAsked = await poll(async () => (await isThere(asked)) || undefined, { everyMs: 200, signal: within() });
    if (isAsked === true) await containerd.restart();
    await writeFile(done, '');
  })();
  const [said] = await Promise.all([installing, restarting]);
  assert.equal(await readFileIfThere(asked), 'restart containerd\n');
  assert.match(said, /^restarted containerd, and ran a pod of podvm there/m);
  await assertFinding(tour, 'podvm is one of its runtimes');
  const next = await Pod.run(crictl, work, 'installed', 'podvm');
  const id = await next.start('main', 'sleep 1000');
  assert.equal(await execSync(crictl, id, 'hostname'), 'installed');
  assert.equal(await execSync(crictl, beside, 'echo', 'here'), 'here');
  await next.remove();
}
