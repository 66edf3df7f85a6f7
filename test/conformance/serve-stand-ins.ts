import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeLayout } from '../images/layout-writer.ts';
import { type Registry, startRegistry } from '../images/registry.ts';
import { DebianFiles } from './debian-files.ts';
import { type StandIn, standIns } from './stand-ins.ts';

export interface ServedImages extends AsyncDisposable {
  /** Replaces /etc/containers: it redirects requests for the images' own registries to ours. */
  readonly containersDirectory: string;
  /** The same for containerd, as its `config_path`. */
  readonly containerdDirectory: string;
}

/** Makes stand-ins, by default those of critest, in `work`, and serves them from a real registry on loopback. */
export async function serveStandIns(
  cache: string,
  work: string,
  signal: AbortSignal,
  make: (debian: DebianFiles) => Promise<readonly StandIn[]> = standIns,
): Promise<ServedImages> {
  await using undo = new AsyncDisposableStack();
  const registry = undo.use(await startRegistry());
  const debian = await DebianFiles.unpack(cache, signal);
  const hosts = new Set<string>();
  for (const [at, { names, image }] of (await make(debian)).entries()) {
    const layout = join(work, 'images', String(at));
    await writeLayout(layout, [image]);
    for (const name of names) {
      hosts.add(name.slice(0, name.indexOf('/')));
      await registry.push(layout, name);
    }
  }
  const containersDirectory = join(work, 'containers');
  await writeContainersDirectory(containersDirectory, [...hosts], registry);
  const containerdDirectory = join(work, 'certs.d');
  for (const host of hosts) await writeHosts(join(containerdDirectory, host), host, registry);
  const owned = undo.move();
  return { containersDirectory, containerdDirectory, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** containers-registries.conf(5): a location of our own, not a mirror, so that nothing asks the real ones meanwhile. */
async function writeContainersDirectory(path: string, hosts: readonly string[], { name }: Registry): Promise<void> {
  const blocks = hosts.map(
    (host) => `[[registry]]\nprefix = "${host}"\nlocation = "${name}/${host}"\ninsecure = true\n`,
  );
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'registries.conf'), blocks.join('\n'));
  await writeFile(join(path, 'policy.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }));
}

/** The registry has the images of a host below the host's name. */
async function writeHosts(path: string, host: string, { name }: Registry): Promise<void> {
  const lines = [
    `[host."http://${name}/v2/${host}"]`,
    'capabilities = ["pull", "resolve"]',
    'override_path = true',
    '',
  ];
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'hosts.toml'), lines.join('\n'));
}
