import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, glob, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { installContainerd, mainPath } from '#daemon/containerd/install-containerd.ts';
import { installK3s, k3sConfig } from '#daemon/containerd/install-k3s.ts';
import { mkfsErofs } from '#image/snapshot/flatten-layers.ts';
import type { RuntimePlaces } from '#daemon/doctor/doctor-runtimes.ts';
import { sysroot } from '../images/image-tree.ts';
import type { ContainerdPrograms } from './build-containerd.ts';

export interface ContainerdOptions {
  readonly programs: ContainerdPrograms;
  /** Directory for all its files. */
  readonly work: string;
  /** Network namespace in which it runs, by name; absent: that of the host. */
  readonly netns?: string;
  /** Socket of podvm's task API; absent: it has no runtime podvm. */
  readonly shimSocket?: string;
  /** Whether its configuration is made, and podvm installed in it, as if it were part of k3s. */
  readonly isK3s?: boolean;
  /** Directory of `hosts.toml` files, which name the servers of registries. */
  readonly registries?: string;
  /** Configuration of its CNI network; default: a bridge, with host ports. */
  readonly network?: object;
  /** Image of the process that stands for a pod of runc. */
  readonly pauseImage: string;
  /** A further line of its CRI section. */
  readonly setting?: string;
  /** Runtime handler of pods that name none; default: runc. */
  readonly handler?: string;
  /** Name under which its program runs, and starts again whenever another process has ended it. */
  readonly revivesAs?: string;
}

/** A containerd with the runtimes runc and podvm, for one test. */
export interface ContainerdNode extends AsyncDisposable {
  readonly pid: number;
  readonly socket: string;
  readonly endpoint: string;
  readonly places: RuntimePlaces;
  /** Directory with the bundles of its tasks, below their namespaces. */
  readonly bundles: string;
  readonly ctrProgram: string;
  /** Kills it. */
  stop(): Promise<void>;
  /** Kills it if it runs, and starts the next one. */
  restart(): Promise<void>;
  ctr(...args: readonly string[]): Promise<string>;
  log(): Promise<string>;
}

/** Handler of podvm's pods whose images containerd keeps with its erofs snapshotter, from version 2 on. */
export const erofsHandler = 'podvm-erofs';

/** Version of podvm in containerd's configuration. */
export const testVersion = 'test';

const servingTimeoutMs = 60_000;
/** Time until another process, which looks once a second, has seen that it is gone. */
const reviveMs = 3000;

export async function startContainerd(options: ContainerdOptions): Promise<ContainerdNode> {
  const { programs, work, netns } = options;
  const socket = join(work, 'containerd.sock');
  const logFile = join(work, 'containerd.log');
  await mkdir(join(work, 'net.d'));
  await writeFile(join(work, 'net.d/10-bridge.conflist'), JSON.stringify(options.network ?? bridge));
  const common = { systemctl: 'false', socket, programs: work };
  const places: RuntimePlaces = {
    containerd: { ...common, containerd: programs.containerd, configuration: work },
    k3s: { ...common, k3s: join(work, 'k3s'), configuration: join(work, 'agent/etc/containerd') },
  };
  const config = await configure(options, places);
  // Finds shims in PATH; old versions have no runtime_path.
  const PATH = `${work}:${dirname(programs.containerd)}:${dirname(programs.runc)}:${defaultEnv()['PATH'] ?? ''}`;
  await writeMkfs(work);
  const program = options.revivesAs === undefined ? programs.containerd : join(work, options.revivesAs);
  if (program !== programs.containerd) await copyFile(programs.containerd, program);
  const begin = async (): Promise<ChildProcess> => {
    await using output = await open(logFile, 'a');
    const inside = netns === undefined ? [] : [`--net=/run/netns/${netns}`];
    const child = spawn('nsenter', [...inside, '--', program, '--config', config], {
      detached: true, // Ctrl-C ends the test, which needs it for a while
      stdio: ['ignore', output.fd, output.fd],
      env: { ...defaultEnv(), PATH },
    });
    const signal = AbortSignal.timeout(servingTimeoutMs);
    if ((await poll(() => servesCri(socket), { everyMs: 200, signal })) === true) return child;
    child.kill('SIGKILL');
    throw new PodvmError('timeout', `containerd does not serve:\n${(await readFile(logFile, 'utf8')).slice(-2000)}`);
  };
  let child = await begin();
  const reviving = new AbortController();
  const revived = options.revivesAs === undefined ? undefined : revive();
  async function revive(): Promise<void> {
    while (!reviving.signal.aborted) {
      if (child.exitCode === null && child.signalCode === null) {
        await once(child, 'exit', { signal: reviving.signal }).catch(() => undefined);
        continue;
      }
      await setTimeout(reviveMs, undefined, { signal: reviving.signal }).catch(() => undefined);
      if (!reviving.signal.aborted) child = await begin();
    }
  }
  const kill = async (how: 'SIGKILL' | 'SIGTERM') => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(how);
    await ended;
  };
  return {
    get pid() {
      return child.pid ?? 0;
    },
    socket,
    endpoint: `unix://${socket}`,
    places,
    bundles: join(work, 'state/io.containerd.runtime.v2.task'),
    ctrProgram: programs.ctr,
    stop: () => kill('SIGKILL'),
    async restart() {
      await kill('SIGKILL');
      child = await begin();
    },
    ctr: async (...args) =>
      (await run(programs.ctr, ['--address', socket, '--namespace', 'k8s.io', ...args], { timeoutMs: 120_000 })).stdout,
    log: async () => await readFile(logFile, 'utf8'),
    async [Symbol.asyncDispose]() {
      reviving.abort();
      await revived;
      await kill('SIGTERM');
    },
  };
}

export const bridgeName = 'ctd0';

/** A network as clusters have it: any plugins, run by containerd. */
const bridge = {
  cniVersion: '1.0.0',
  name: 'test',
  plugins: [
    {
      type: 'bridge',
      bridge: bridgeName,
      isGateway: true,
      ipMasq: false,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.88.7.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
};

/** Writes the configuration, with the runtime podvm if it has a socket. Returns its path. */
async function configure(options: ContainerdOptions, { containerd, k3s }: RuntimePlaces): Promise<string> {
  const { shimSocket, isK3s = false } = options;
  const text = configOf(options, containerd.socket);
  const config = isK3s ? k3sConfig(k3s) : mainPath(containerd);
  await mkdir(dirname(config), { recursive: true });
  await writeFile(config, text);
  if (shimSocket === undefined) return config;
  const podvm = { shimSocketPath: shimSocket, version: testVersion };
  const choices = { isDry: false, restarts: false };
  const signal = AbortSignal.timeout(servingTimeoutMs);
  if (!isK3s) {
    await installContainerd(podvm, choices, containerd, signal);
    return config;
  }
  await writeFile(k3s.k3s, "#!/bin/sh\necho 'k3s version v1.33.4+k3s1 (test)'\n", { mode: 0o755 });
  await installK3s(podvm, choices, k3s, signal);
  const found = await Array.fromAsync(glob('*.tmpl', { cwd: k3s.configuration }));
  const template = await readFile(join(k3s.configuration, found[0] ?? ''), 'utf8');
  await writeFile(
    config,
    template.replace('{{ template "base" . }}', () => text),
  ); // as k3s does at its start
  return config;
}

/** The names of sections have changed with containerd 2. */
function configOf(options: ContainerdOptions, socket: string): string {
  const { programs, work, pauseImage, registries } = options;
  const isNew = !programs.version.startsWith('1.');
  const cri = isNew ? 'io.containerd.cri.v1.runtime' : 'io.containerd.grpc.v1.cri';
  const pause = isNew
    ? `[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "${pauseImage}"\n[plugins."${cri}"]`
    : `[plugins."${cri}"]\n  sandbox_image = "${pauseImage}"`;
  const cni = isNew ? 'bin_dirs = ["/usr/lib/cni"]' : 'bin_dir = "/usr/lib/cni"';
  return `version = ${isNew ? 3 : 2}
${isNew ? `imports = ["${work}/conf.d/*.toml"]\n` : ''}root = "${work}/root"
state = "${work}/state"
[grpc]
  address = "${socket}"
${pause}
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  ${options.setting ?? ''}
[plugins."${cri}".cni]
  ${cni}
  conf_dir = "${work}/net.d"
[plugins."${cri}".containerd]
  default_runtime_name = "${options.handler ?? 'runc'}"
[plugins."${cri}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."${cri}".containerd.runtimes.runc.options]
  BinaryName = "${programs.runc}"
  Root = "${work}/runc"
${
  isNew
    ? `[plugins."${cri}".containerd.runtimes.${erofsHandler}]
  runtime_type = "io.containerd.podvm.v2"
  snapshotter = "erofs"
  privileged_without_host_devices = true
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]`
    : ''
}
${registries === undefined ? '' : `[plugins."${isNew ? 'io.containerd.cri.v1.images' : cri}".registry]\n  config_path = "${registries}"`}
[plugins."io.containerd.nri.v1.nri"]
  disable = true
`;
}

/** Containerd's erofs snapshotter runs `mkfs.erofs` of PATH; a new one is in the sysroot. */
async function writeMkfs(work: string): Promise<void> {
  const command = mkfsErofs(await sysroot()).map((word) => `'${word}'`);
  await writeFile(join(work, 'mkfs.erofs'), `#!/bin/sh\nexec ${command.slice(0, 5).join(' ')} "$@"\n`, { mode: 0o755 });
}

/** Its socket is there before its CRI service, which looks for earlier pods first. */
async function servesCri(socket: string): Promise<true | undefined> {
  using client = connectTestClient(socket);
  try {
    await client.of(RuntimeService).version({});
    return true;
  } catch {
    return undefined;
  }
}
