import type { ContainerParams } from '#wire/container-params.ts';
import type { Engine } from '#engine/engine.ts';
import type { Children } from '../process/children.ts';
import { poll } from '../process/poll.ts';
import type { Projects } from '../volume/projects.ts';
import type { Cgroups } from './cgroups.ts';
import { type Crun, crunStateRoot } from './crun.ts';
import { withoutUsualRules } from './device-program.ts';
import { containerDevices } from './devices.ts';
import { ociConfig } from './oci-config.ts';
import { Rootfs } from './rootfs.ts';

interface Parts {
  readonly engine: Engine;
  readonly children: Children;
  readonly cgroups: Cgroups;
  readonly projects: Projects;
  readonly crun: Crun;
  readonly usualDevicesFd: number | undefined;
}

/** Root file system, in memory: directories to mount on, and a program that crun finds and never runs. */
const image = '/run/podvm/rehearsal';
const directories = ['bin', 'dev', 'etc', 'proc', 'sys'];
const noDisks = {
  mapped: () => image,
  path: () => image,
  device: () => '',
  deviceNumbers: () => ({ major: 0, minor: 0 }),
};
const user = { uid: 0, gid: 0, additionalGids: [0], home: '/' };

const pollMs = 5;
const removeDeadlineMs = 5000;

/**
 * Makes a container as for a pod, and removes it without running its command. It is outside of the pod's cgroup and needs no
 * disk; the agent answers calls and makes the pod's containers meanwhile. Errors: as `Containers.create`.
 */
export async function rehearse(parts: Parts, params: ContainerParams): Promise<void> {
  const { engine, children, cgroups, projects, crun } = parts;
  const { id } = params;
  const cgroup = `/${id}`;
  for (const name of directories) engine.makeDirectories(`${image}/${name}`);
  engine.writeFile(`${image}/bin/${params.process.args[0] ?? ''}`, '', 0o755);
  const rootfs = new Rootfs(engine, noDisks, projects, params, undefined);
  try {
    const devices = containerDevices(engine, noDisks, { params, user, users: undefined });
    const config = ociConfig({
      params,
      user,
      hostname: 'localhost',
      mounts: [],
      pidNamespaceOf: undefined,
      users: undefined,
      cgroupPath: cgroup,
      devices: withoutUsualRules(parts, cgroup, devices),
    });
    engine.writeFile(`${rootfs.bundle}/config.json`, JSON.stringify(config), 0o600);
    await children.expecting(async () => {
      const { pid } = await crun.create({ id, bundle: rootfs.bundle, fds: [-1, -1, -1], tty: false });
      cgroups.kill(cgroup);
      await children.wait(pid);
    });
  } finally {
    cgroups.kill(cgroup);
    await poll(engine, () => cgroups.remove(cgroup) || undefined, { everyMs: pollMs, forMs: removeDeadlineMs });
    engine.removeTree(`${crunStateRoot}/${id}`);
    rootfs.remove();
    engine.removeTree(image);
  }
}
